//! Charts over the time of a test, in SVG: panels one below the other, with the fault windows shaded through all of them.

use std::fmt::Write;

use crate::check::fault::{Class, Faults, Window};

const LEFT: f64 = 70.0;
const WIDTH: f64 = 1_000.0;
const RIGHT: f64 = 130.0;
const TOP: f64 = 50.0;
const PANEL_HEIGHT: f64 = 180.0;
const PANEL_GAP: f64 = 40.0;

/// How a panel's values go up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scale {
    /// From 0 to this.
    Linear(f64),
    /// From the first to the second, both greater than 0, by powers of ten.
    Log(f64, f64),
}

impl Scale {
    /// Where a value stands, from 0 at the bottom to 1 at the top; values beyond the ends stand at them.
    fn place(self, value: f64) -> f64 {
        let place = match self {
            Scale::Linear(most) => value / most,
            Scale::Log(least, most) => (value.max(least).log10() - least.log10()) / (most.log10() - least.log10()),
        };
        place.clamp(0.0, 1.0)
    }

    fn ticks(self) -> Vec<f64> {
        match self {
            Scale::Linear(most) => (0..=4).map(|quarter| most * f64::from(quarter) / 4.0).collect(),
            Scale::Log(least, most) => {
                std::iter::successors(Some(least), |tick| Some(tick * 10.0)).take_while(|tick| *tick <= most * 1.01).collect()
            }
        }
    }
}

/// A picture that grows panel by panel.
#[derive(Debug)]
pub(crate) struct Chart {
    seconds: f64,
    panels: u32,
    body: String,
}

impl Chart {
    /// An empty one of a test that took so long.
    pub(crate) fn new(seconds: f64) -> Chart {
        Chart { seconds: seconds.max(0.001), panels: 0, body: String::new() }
    }

    /// Begins the next panel.
    pub(crate) fn panel(&mut self, title: &str, scale: Scale, faults: &Faults<'_>) {
        self.panels += 1;
        let bottom = self.bottom();
        let top = bottom - PANEL_HEIGHT;
        for window in &faults.windows {
            self.shade(window, top);
        }
        push(
            &mut self.body,
            format_args!(r##"<rect x="{LEFT}" y="{top}" width="{WIDTH}" height="{PANEL_HEIGHT}" fill="none" stroke="#888"/>"##),
        );
        push(
            &mut self.body,
            format_args!(r#"<text x="{LEFT}" y="{:.1}" font-weight="bold">{}</text>"#, top - 8.0, escape(title)),
        );
        for tick in scale.ticks() {
            let y = bottom - scale.place(tick) * PANEL_HEIGHT;
            push(
                &mut self.body,
                format_args!(r##"<line x1="{LEFT}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}" stroke="#ddd"/>"##, LEFT + WIDTH),
            );
            push(
                &mut self.body,
                format_args!(r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#, LEFT - 6.0, y + 4.0, short(tick)),
            );
        }
        let step = round_up(self.seconds / 10.0);
        let ticks = std::iter::successors(Some(0.0), |tick| Some(tick + step)).take_while(|tick| *tick <= self.seconds);
        for tick in ticks.take(100) {
            let x = self.x(tick);
            push(
                &mut self.body,
                format_args!(r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle">{} s</text>"#, bottom + 14.0, short(tick)),
            );
        }
    }

    /// Dots in the last panel.
    pub(crate) fn dots(&mut self, scale: Scale, colour: &str, points: impl IntoIterator<Item = (f64, f64)>) {
        // One path of round caps: a tenth of the size of a circle each.
        let mut path = String::new();
        for (second, value) in points {
            push(&mut path, format_args!("M{:.1} {:.1}h0", self.x(second), self.bottom() - scale.place(value) * PANEL_HEIGHT));
        }
        if !path.is_empty() {
            push(
                &mut self.body,
                format_args!(
                    r#"<path d="{path}" stroke="{colour}" stroke-width="2.5" stroke-linecap="round" stroke-opacity="0.5" fill="none"/>"#
                ),
            );
        }
    }

    /// A line in the last panel, broken where there is no point.
    pub(crate) fn line(&mut self, scale: Scale, colour: &str, points: impl IntoIterator<Item = Option<(f64, f64)>>) {
        let mut path = String::new();
        let mut step = 'M';
        for point in points {
            let Some((second, value)) = point else {
                step = 'M';
                continue;
            };
            push(&mut path, format_args!("{step}{:.1} {:.1}", self.x(second), self.bottom() - scale.place(value) * PANEL_HEIGHT));
            step = 'L';
        }
        if !path.is_empty() {
            push(
                &mut self.body,
                format_args!(r#"<path d="{path}" stroke="{colour}" stroke-width="1.5" stroke-linecap="round" fill="none"/>"#),
            );
        }
    }

    /// What colours mean, beside the last panel.
    pub(crate) fn legend(&mut self, names: &[(&str, &str)]) {
        let mut y = self.bottom() - PANEL_HEIGHT + 12.0;
        for (name, colour) in names {
            let x = LEFT + WIDTH + 10.0;
            push(&mut self.body, format_args!(r#"<rect x="{x}" y="{:.1}" width="10" height="10" fill="{colour}"/>"#, y - 9.0));
            push(&mut self.body, format_args!(r#"<text x="{:.1}" y="{y:.1}">{}</text>"#, x + 16.0, escape(name)));
            y += 16.0;
        }
    }

    /// The whole picture.
    pub(crate) fn finish(self, title: &str) -> String {
        let (width, height) = (LEFT + WIDTH + RIGHT, self.bottom() + 30.0);
        let head = format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" "#
        );
        let style = r#"font-family="sans-serif" font-size="11">"#;
        let ground = r#"<rect width="100%" height="100%" fill="white"/>"#;
        let title = format!(r#"<text x="{LEFT}" y="20" font-size="14">{}</text>"#, escape(title));
        format!("{head}{style}\n{ground}\n{title}\n{}</svg>\n", self.body)
    }

    fn shade(&mut self, window: &Window<'_>, top: f64) {
        let (begin, end) = (seconds(window.begin), seconds(window.end).min(self.seconds));
        let (x, width) = (self.x(begin), (self.x(end) - self.x(begin)).max(1.0));
        push(
            &mut self.body,
            format_args!(
                r#"<rect x="{x:.1}" y="{top}" width="{width:.1}" height="{PANEL_HEIGHT}" fill="{}" fill-opacity="0.25"><title>{}</title></rect>"#,
                colour_of(window),
                escape(&name_of(window))
            ),
        );
    }

    fn x(&self, second: f64) -> f64 {
        LEFT + (second / self.seconds).clamp(0.0, 1.0) * WIDTH
    }

    fn bottom(&self) -> f64 {
        TOP + f64::from(self.panels) * (PANEL_HEIGHT + PANEL_GAP) - PANEL_GAP
    }
}

/// Words for a fault window: what, where, when.
pub(crate) fn name_of(window: &Window<'_>) -> String {
    let nodes = window.nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let at = if nodes.is_empty() { String::new() } else { format!(" at node {nodes}") };
    let end = if window.end == u64::MAX { "the end".to_owned() } else { format!("{:.3} s", seconds(window.end)) };
    let effect = if window.effect.is_some() { "" } else { ", without effect" };
    format!("{}{at}, {:.3} s to {end}{effect}", window.name, seconds(window.begin))
}

/// A fault window's colour; grey where it had no effect.
pub(crate) fn colour_of(window: &Window<'_>) -> &'static str {
    match window.class {
        _ if window.effect.is_none() => "#bbb",
        Class::Down | Class::Data => "#e06666",
        Class::Removed | Class::Restart => "#e69138",
        Class::Paused => "#f1c232",
        Class::Disk => "#8e7cc3",
        Class::Backend => "#a2886d",
        Class::Other => "#6fa8dc",
    }
}

/// Text inside of XML and HTML.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // XML has no other control characters, not even escaped.
            control if control.is_control() && control != '\n' => escaped.push('\u{fffd}'),
            plain => escaped.push(plain),
        }
    }
    escaped
}

/// Adds a line; a `String` takes all of them.
pub(crate) fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line).expect("a String grows");
}

/// Seconds of nanoseconds.
#[expect(clippy::cast_precision_loss, reason = "a picture needs no nanoseconds")]
pub(crate) fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// The next of 1, 2, 5, 10, 20 ... that is not less.
pub(crate) fn round_up(value: f64) -> f64 {
    let magnitude = 10f64.powf(value.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * magnitude).find(|step| *step >= value).unwrap_or(10.0 * magnitude)
}

fn short(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_hold_their_ends() {
        let log = Scale::Log(0.1, 1_000.0);
        assert_eq!([0.0, 0.1, 10.0, 1e9].map(|value| log.place(value)), [0.0, 0.0, 0.5, 1.0]);
        assert_eq!(log.ticks().len(), 5);
        assert_eq!([0.0, 5.0, 20.0].map(|value| Scale::Linear(10.0).place(value)), [0.0, 0.5, 1.0]);
        assert_eq!([0.3, 1.0, 6.0, 70.0].map(round_up), [0.5, 1.0, 10.0, 100.0]);
        assert_eq!([0.1, 12.0, 2.5].map(short), ["0.1", "12", "2.5"]);
    }

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("<a href=\"x\">&\u{7}"), "&lt;a href=&quot;x&quot;&gt;&amp;\u{fffd}");
    }
}
