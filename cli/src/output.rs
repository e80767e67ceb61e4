//! Output for people and programs.

pub(crate) mod entries;
mod safe_text;

pub(crate) use safe_text::printable;

use abi::{ids::Conversation, v1::Entry};
use rustyline::ExternalPrinter;
use serde_json::Value;
use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::{Mutex, PoisonError},
};

/// Writes results to stdout, or above the line in the editor.
pub(crate) struct Output {
    /// One JSON object per line instead of text.
    pub(crate) json: bool,
    printer: Mutex<Option<Box<dyn ExternalPrinter + Send>>>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, printer: Mutex::new(None) }
    }

    /// Prints further lines with `printer`, above the line in the editor; `None` prints to stdout.
    pub(crate) fn print_with(&self, printer: Option<Box<dyn ExternalPrinter + Send>>) {
        *self.printer.lock().unwrap_or_else(PoisonError::into_inner) = printer;
    }

    /// Prints a line of text, without `--json`.
    pub(crate) fn text(&self, line: &str) -> io::Result<()> {
        if self.json { Ok(()) } else { self.write(&safe_text::clean(line)) }
    }

    /// Prints a JSON object, with `--json`.
    pub(crate) fn object(&self, object: &Value) -> io::Result<()> {
        if self.json { self.write(&object.to_string()) } else { Ok(()) }
    }

    /// Prints an entry as `me` sees it; `with_place` includes the conversation.
    pub(crate) fn entry(&self, entry: &Entry, me: &str, with_place: bool) -> io::Result<()> {
        if self.json {
            self.object(&entries::object(entry))
        } else {
            self.text(&entries::line(entry, me, with_place))
        }
    }

    /// Prints a remark: above the line in the editor, or to stderr. Errors are ignored.
    pub(crate) fn remark(&self, line: &str) {
        if self.print(&safe_text::clean(line)).is_none() {
            remark(line);
        }
    }

    fn write(&self, line: &str) -> io::Result<()> {
        if let Some(printed) = self.print(line) {
            return printed;
        }
        let mut out = io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()
    }

    /// Prints above the line in the editor; `None` if there is no editor.
    fn print(&self, line: &str) -> Option<io::Result<()>> {
        let mut printer = self.printer.lock().unwrap_or_else(PoisonError::into_inner);
        printer.as_mut().map(|printer| printer.print(format!("{line}\n")).map_err(io::Error::other))
    }
}

/// Prints a line to stderr. Errors are ignored.
pub(crate) fn remark(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", safe_text::clean(line));
}

/// Prints a remark to stderr if it is a terminal.
pub(crate) fn hint(line: &str) {
    if io::stderr().is_terminal() {
        remark(line);
    }
}

/// The other user of a direct conversation, or the group's id.
pub(crate) fn label(conversation: &str, me: &str) -> String {
    match Conversation::parse(conversation) {
        Ok(Conversation::Direct(a, b)) => if a == me { b } else { a }.to_owned(),
        _ => conversation.to_owned(),
    }
}

/// Time of day in UTC, with the date if it is not today.
pub(crate) fn clock(at_ms: i64) -> String {
    let today = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.as_secs() as i64)
        .div_euclid(86_400);
    clock_on(at_ms, today)
}

fn clock_on(at_ms: i64, today: i64) -> String {
    let seconds = at_ms.div_euclid(1_000);
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let time = format!("{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60);
    if day == today {
        return time;
    }
    // Days to a date in the proleptic Gregorian calendar, with years that start in March.
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day_of_month:02} {time}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days() {
        assert_eq!(clock_on(0, 0), "00:00:00Z");
        assert_eq!(clock_on(0, 1), "1970-01-01 00:00:00Z");
        assert_eq!(clock_on(951_782_399_000, 0), "2000-02-28 23:59:59Z");
        assert_eq!(clock_on(951_868_799_000, 0), "2000-02-29 23:59:59Z");
        assert_eq!(clock_on(1_709_251_200_000, 0), "2024-03-01 00:00:00Z");
    }
}
