//! The rows of files that containers cannot set: constant files, and files whose text is computed.

use crate::{Bound, Context, Error, Facts, Needs, Pace, PressureResource};

/// The row of one virtual file. Its text is computed for each container, or is the same for all.
#[derive(Debug, Clone, Copy)]
pub struct View {
    facts: Facts,
    content: Content,
    offered: fn(&Context<'_>) -> bool,
}

/// Appends the text of a view and returns its bound.
pub type Render = fn(&Facts, &Context<'_>, &mut Vec<u8>) -> Result<Bound, Error>;

#[derive(Debug, Clone, Copy)]
enum Content {
    /// All containers get this text.
    Constant(&'static [u8]),
    Computed(Render),
}

impl View {
    /// Returns the row of a file that everybody may read and whose text changes all the time.
    ///
    /// `id` is a free id. With the id 0 the test of the registry fails and names the next free one. The row has no
    /// needs and no sources until the other functions set them.
    pub const fn new(id: u16, path: &'static str, render: Render) -> View {
        View {
            facts: Facts {
                id,
                path,
                mode: 0o444,
                pace: Pace::Ticking,
                source_v1: "none",
                source_v2: "none",
                invented: "",
                needs: Needs::NOTHING,
                pressure: None,
            },
            content: Content::Computed(render),
            offered: |_| true,
        }
    }

    /// Returns the row of a file that has the same text for all containers. `invented` is for documents.
    pub const fn constant(
        id: u16,
        path: &'static str,
        mode: u16,
        text: &'static [u8],
        invented: &'static str,
    ) -> View {
        let mut this = View::new(id, path, nothing).invented(invented).steady();
        this.facts.mode = mode;
        this.content = Content::Constant(text);
        this
    }

    /// Returns the row of a file that is empty for all containers, and that only root may read.
    pub const fn hidden(id: u16, path: &'static str) -> View {
        View::constant(id, path, 0o400, b"", "empty, where the kernel has text")
    }

    /// Declares that the text changes only with limits, CPUs or hotplug.
    #[must_use]
    pub const fn steady(mut self) -> View {
        self.facts.pace = Pace::Static;
        self
    }

    /// Sets the permission bits.
    #[must_use]
    pub const fn mode(mut self, mode: u16) -> View {
        self.facts.mode = mode;
        self
    }

    /// Declares the parts of the context that the text is computed from. The render function cannot read any other.
    #[must_use]
    pub const fn needs(mut self, needs: Needs) -> View {
        self.facts.needs = needs;
        self
    }

    /// Sets the sources of the numbers with cgroup v1 and v2, for documents.
    #[must_use]
    pub const fn sources(mut self, v1: &'static str, v2: &'static str) -> View {
        self.facts.source_v1 = v1;
        self.facts.source_v2 = v2;
        self
    }

    /// Sets the part of the text that no figure of the kernel stands behind, for documents.
    #[must_use]
    pub const fn invented(mut self, what: &'static str) -> View {
        self.facts.invented = what;
        self
    }

    /// Declares that PSI triggers for `resource` can be written to the file, and that it can be polled.
    #[must_use]
    pub const fn pressure(mut self, resource: PressureResource) -> View {
        self.facts.pressure = Some(resource);
        self
    }

    /// Declares which containers get a graft. The file is served to all of them.
    #[must_use]
    pub const fn only_for(mut self, offered: fn(&Context<'_>) -> bool) -> View {
        self.offered = offered;
        self
    }

    /// Returns whether the container gets a graft.
    pub(crate) fn is_offered(&self, cx: &Context<'_>) -> bool {
        (self.offered)(cx)
    }

    /// Returns the id of the file.
    pub const fn id(&self) -> u16 {
        self.facts.id
    }

    /// Returns what is known about the file without looking at a container.
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Appends the text of the view to `out`, unpadded, and returns its bound.
    ///
    /// # Errors
    /// Fails when a file that it reads is missing or does not have the kernel's format.
    pub fn render(&self, cx: &Context<'_>, out: &mut Vec<u8>) -> Result<Bound, Error> {
        match self.content {
            Content::Constant(text) => {
                out.extend_from_slice(text);
                Ok(Bound::Exact)
            }
            Content::Computed(render) => render(&self.facts, cx, out),
        }
    }
}

fn nothing(_: &Facts, _: &Context<'_>, _: &mut Vec<u8>) -> Result<Bound, Error> {
    Ok(Bound::Exact)
}
