//! The report as a picture: a bar for each view and subject, on a logarithmic scale.

use super::report::{Report, Times};

const LEFT: f64 = 250.0;
const WIDTH: f64 = 560.0;
const BAR: f64 = 11.0;
const GAP: f64 = 8.0;
const TOP: f64 = 64.0;

/// The subjects and their colours. Colour-blind people can tell them apart, on white and on black.
const SUBJECTS: [(&str, &str); 3] = [
    ("the kernel's own file", "#888888"),
    ("eci-fs", "#1a7f37"),
    ("lxcfs", "#bc4c00"),
];

/// Draws the times to open, read and close each view.
pub(super) fn draw(report: &Report) -> String {
    let rows: Vec<(String, [Option<Times>; 3])> = report
        .views
        .iter()
        .filter_map(|view| {
            let compared = view.ways.iter().find(|compared| compared.way == "open")?;
            let kind = if view.cached { "" } else { " (live)" };
            Some((
                format!("{}{kind}", view.path),
                [Some(compared.kernel), Some(compared.ours), compared.lxcfs],
            ))
        })
        .collect();
    let all = || rows.iter().flat_map(|(_, times)| times.iter().flatten());
    let least = all().map(|t| t.p50_usec).fold(f64::INFINITY, f64::min);
    let most = all().map(|t| t.p50_usec).fold(0.0, f64::max);
    let from = decade(least).min(0);
    let to = (decade(most) + 1).max(from + 1);
    let x = |usec: f64| {
        let share = (usec.max(1e-6).log10() - f64::from(from)) / f64::from(to - from);
        LEFT + WIDTH * share.clamp(0.0, 1.0)
    };
    let mut body = String::new();
    let mut y = TOP;
    for (title, times) in &rows {
        body += &text(LEFT - 8.0, y + 15.0, "end", title);
        for (time, (_, colour)) in times.iter().zip(SUBJECTS) {
            let Some(time) = time else { continue };
            let end = x(time.p50_usec);
            body += &format!(
                "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\n",
                (end - LEFT).max(1.0)
            );
            body += &text(end + 4.0, y + BAR - 1.0, "start", &number(time.p50_usec));
            y += BAR + 1.0;
        }
        y += GAP;
    }
    let mut axis = String::new();
    for exponent in from..=to {
        let at = x(10f64.powi(exponent));
        axis += &format!(
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{:.1}\" y2=\"{y:.1}\" stroke=\"#cccccc\"/>\n",
            TOP - 6.0
        );
        axis += &text(at, TOP - 10.0, "middle", &number(10f64.powi(exponent)));
    }
    let mut legend = text(
        LEFT,
        18.0,
        "start",
        "open, read to the end, close: median microseconds, less is better",
    );
    let used = if all_have_no_peer(&rows) { 2 } else { 3 };
    for (index, (name, colour)) in SUBJECTS.iter().take(used).enumerate() {
        let at = LEFT + 150.0 * index as f64;
        legend += &format!(
            "<rect x=\"{at}\" y=\"28\" width=\"{BAR}\" height=\"{BAR}\" fill=\"{colour}\"/>\n"
        );
        legend += &text(at + 12.0, 36.0, "start", name);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h:.0}\" viewBox=\"0 0 {w} {h:.0}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{legend}{axis}{body}</svg>\n",
        w = LEFT + WIDTH + 60.0,
        h = y + 8.0
    )
}

fn all_have_no_peer(rows: &[(String, [Option<Times>; 3])]) -> bool {
    rows.iter().all(|(_, [_, _, lxcfs])| lxcfs.is_none())
}

/// Returns the exponent of the power of ten at or below a time.
fn decade(usec: f64) -> i32 {
    if usec.is_finite() && usec > 0.0 {
        usec.log10().floor() as i32
    } else {
        0
    }
}

fn number(usec: f64) -> String {
    match usec {
        usec if usec >= 100.0 => format!("{usec:.0}"),
        usec if usec >= 10.0 => format!("{usec:.1}"),
        usec => format!("{usec:.2}"),
    }
}

/// Returns a text element. No text that is drawn here needs escaping in XML.
fn text(x: f64, y: f64, anchor: &str, text: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n")
}

#[cfg(test)]
mod tests {
    use super::super::report::{Compared, View};
    use super::*;

    #[test]
    fn a_bar_is_drawn_for_each_subject() {
        let times = |p50_usec| Times {
            p50_usec,
            ..Times::default()
        };
        let mut report = Report::begin(true);
        report.views.push(View {
            path: "/proc/meminfo".to_owned(),
            cached: true,
            ways: vec![Compared {
                way: "open",
                kernel: times(9.0),
                ours: times(4.0),
                lxcfs: Some(times(300.0)),
                ours_to_kernel: 0.44,
                lxcfs_to_ours: Some(75.0),
            }],
        });
        let svg = draw(&report);
        assert_eq!(svg.matches("fill=\"#bc4c00\"").count(), 2);
        assert!(svg.contains("/proc/meminfo") && svg.trim_end().ends_with("</svg>"));
    }
}
