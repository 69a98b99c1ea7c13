//! A progress bar on a terminal, nothing elsewhere.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `total` steps, or bytes.
pub(super) fn bar(label: &str, total: u64, bytes: bool) -> ProgressBar {
    let counts = if bytes { "{binary_bytes}/{binary_total_bytes}" } else { "{pos}/{len}" };
    let bar = ProgressBar::new(total).with_message(label.to_owned());
    match ProgressStyle::with_template(&format!("{{msg:24}} {{wide_bar}} {counts} {{eta}}")) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
