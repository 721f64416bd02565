//! The soak's chart: four panels over one time axis, faults as thin lines through all of them.

use std::fmt::Write;

use super::soak::Seen;
use crate::probe::MIB;

/// In pixels.
const WIDTH: f64 = 900.0;
const PANEL: f64 = 120.0;
const GAP: f64 = 34.0;
const LEFT: f64 = 70.0;

/// The whole file.
pub(super) fn svg(seen: &Seen) -> String {
    let end = seen.samples.last().map_or(1.0, |sample| sample.second).max(1.0);
    let of = |value: fn(&super::soak::Sample) -> f64| -> Vec<(f64, f64)> {
        seen.samples.iter().map(|sample| (sample.second, value(sample))).collect()
    };
    let minutes = seen.p99_ms.iter().zip(0_u32..);
    let p99 = minutes.flat_map(|(ms, minute)| {
        let from = f64::from(minute) * 60.0;
        [(from, *ms), ((from + 60.0).min(end), *ms)]
    });
    let panels = [
        ("p99 of each minute, ms", p99.collect()),
        ("resident memory, MiB", of(|sample| sample.held.bytes as f64 / MIB as f64)),
        ("open files", of(|sample| sample.held.files as f64)),
        ("threads", of(|sample| sample.held.threads as f64)),
    ];
    let (wide, high) = (LEFT + WIDTH + 20.0, (PANEL + GAP) * panels.len() as f64 + 30.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {wide} {high}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{wide}\" height=\"{high}\" fill=\"white\"/>\n"
    );
    let x = |second: f64| LEFT + second / end * WIDTH;
    for (second, what) in &seen.faults {
        let colour = if matches!(*what, "killed" | "restarted") { "#c33" } else { "#ddd" };
        let (x, bottom) = (x(*second), high - 30.0);
        put(
            &mut out,
            format_args!(
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{GAP}\" y2=\"{bottom}\" stroke=\"{colour}\"><title>{what}</title></line>"
            ),
        );
    }
    for ((title, points), index) in panels.iter().zip(0_u32..) {
        let top = f64::from(index) * (PANEL + GAP) + GAP;
        let most = points.iter().map(|point| point.1).fold(1.0, f64::max);
        let y = |value: f64| top + PANEL - value / most * PANEL;
        let line = points.iter().fold(String::new(), |mut line, (second, value)| {
            let _ = write!(line, "{:.1},{:.1} ", x(*second), y(*value)); // A String takes all.
            line
        });
        let bottom = top + PANEL;
        put(&mut out, format_args!("<text x=\"{LEFT}\" y=\"{:.1}\">{title}</text>", top - 6.0));
        put(
            &mut out,
            format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{most:.1}</text>",
                LEFT - 6.0,
                top + 8.0
            ),
        );
        put(
            &mut out,
            format_args!(
                "<text x=\"{:.1}\" y=\"{bottom:.1}\" text-anchor=\"end\">0</text>",
                LEFT - 6.0
            ),
        );
        put(
            &mut out,
            format_args!(
                "<rect x=\"{LEFT}\" y=\"{top:.1}\" width=\"{WIDTH}\" height=\"{PANEL}\" fill=\"none\" stroke=\"#999\"/>"
            ),
        );
        put(
            &mut out,
            format_args!(
                "<polyline points=\"{line}\" fill=\"none\" stroke=\"#247\" stroke-width=\"1.5\"/>"
            ),
        );
    }
    put(
        &mut out,
        format_args!(
            "<text x=\"{LEFT}\" y=\"{:.1}\">{:.0} minutes; lines: faults (red: the process ended)</text>",
            high - 10.0,
            end / 60.0
        ),
    );
    out.push_str("</svg>\n");
    out
}

fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{line}"); // A String takes all.
}
