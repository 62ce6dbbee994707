//! Containers that start while others are attacked: one of an engine with the hook, and one of `eci-fs run`.

use std::time::Instant;

use support::{Bundle, Engine, Limits, Scene};

use crate::neighbour::Measured;

/// The names of the two ways, as the figures have them.
pub(crate) const WAYS: [&str; 2] = ["start:hook", "start:run"];

/// The containers that are started again and again.
#[derive(Debug)]
pub(crate) struct Starts<'a> {
    scene: &'a Scene,
    bundle: Bundle,
}

impl<'a> Starts<'a> {
    /// Makes the bundle of the engine.
    #[track_caller]
    pub(crate) fn new(scene: &'a Scene) -> Self {
        let bundle = Bundle::new(scene, Engine::Runc, &Limits::default(), false);
        bundle.hook(scene, &[]);
        bundle.program(&["/bin/busybox", "true"]);
        Self { scene, bundle }
    }

    /// Starts each container so often, and adds the times from the start to the end, and the failures.
    pub(crate) fn measure(&self, times: usize, measured: &mut Measured) {
        for _ in 0..times {
            for way in WAYS {
                let began = Instant::now();
                let ran = match way {
                    "start:hook" => self.bundle.run(),
                    _ => self.scene.eci_fs(&["run", "true"]),
                };
                let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                let times = measured.times.entry(way.to_owned()).or_default();
                times.push(took);
                if ran.code != Some(0) {
                    measured.failures.push(format!("{way}: {}", ran.stderr));
                }
            }
        }
    }
}
