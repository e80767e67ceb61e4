//! Input lines from a terminal or a pipe. Reading blocks, so it runs on a thread of its own.

use anyhow::{Result, bail};
use rustyline::{
    ColorMode, Config, Context, Editor, ExternalPrinter, Helper,
    completion::Completer,
    highlight::{CmdKind, Highlighter},
    hint::Hinter,
    history::DefaultHistory,
    validate::Validator,
};
use std::{
    borrow::Cow,
    io::{self, BufRead as _, IsTerminal as _},
    thread,
};
use tokio::sync::mpsc;

/// Lines queued between the reading thread and the command.
const QUEUE: usize = 64;

/// Lines until the end of input.
pub(crate) struct Lines {
    pub(crate) lines: mpsc::Receiver<io::Result<String>>,
    /// On a terminal, a signal for each key that is typed into a text; dropped while the last one is not taken.
    pub(crate) typed: mpsc::Receiver<()>,
    /// On a terminal, prints above the line in the editor.
    pub(crate) printer: Option<Box<dyn ExternalPrinter + Send>>,
}

/// Starts to read lines, with a line editor on a terminal.
pub(crate) fn lines(prompt: String) -> Result<Lines> {
    let (sender, lines) = mpsc::channel(QUEUE);
    let (keys, typed) = mpsc::channel(1);
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        thread::Builder::new().name("stdin".into()).spawn(move || {
            for line in io::stdin().lock().lines() {
                let failed = line.is_err();
                if sender.blocking_send(line).is_err() || failed {
                    break;
                }
            }
        })?;
        return Ok(Lines { lines, typed, printer: None });
    }
    let mut editor: Editor<Keys, DefaultHistory> = Editor::new()?;
    editor.set_helper(Some(Keys(keys)));
    let printer = editor.create_external_printer()?;
    thread::Builder::new().name("terminal".into()).spawn(move || {
        // Ctrl-C, Ctrl-D and a closed terminal end the input.
        while let Ok(line) = editor.readline(&prompt) {
            let _ = editor.add_history_entry(&line);
            if sender.blocking_send(Ok(line)).is_err() {
                break;
            }
        }
    })?;
    Ok(Lines { lines, typed, printer: Some(Box::new(printer)) })
}

/// Notices the keys that are typed: the editor asks for a hint after each of them.
struct Keys(mpsc::Sender<()>);

impl Helper for Keys {}
impl Completer for Keys {
    type Candidate = String;
}
impl Highlighter for Keys {}
impl Validator for Keys {}
impl Hinter for Keys {
    type Hint = String;

    fn hint(&self, line: &str, _: usize, _: &Context<'_>) -> Option<String> {
        if is_text(line) {
            let _ = self.0.try_send(());
        }
        None
    }
}

/// Whether others read the line, or a part of it. Most commands are the person's own business.
fn is_text(line: &str) -> bool {
    match line.strip_prefix('/') {
        Some(command) => ["/", "reply ", "edit "].iter().any(|text| command.starts_with(text)),
        None => !line.is_empty(),
    }
}

/// Shows asterisks in place of the typed text.
struct Masked;

impl Helper for Masked {}
impl Completer for Masked {
    type Candidate = String;
}
impl Hinter for Masked {
    type Hint = String;
}
impl Validator for Masked {}
impl Highlighter for Masked {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        Cow::Owned("*".repeat(line.chars().count()))
    }

    fn highlight_char(&self, _: &str, _: usize, kind: CmdKind) -> bool {
        !matches!(kind, CmdKind::MoveCursor)
    }
}

/// Returns the given password, or asks for one; for a `new` password, twice.
pub(crate) async fn password(given: Option<String>, new: bool) -> Result<String> {
    if let Some(password) = given {
        return Ok(password);
    }
    tokio::task::spawn_blocking(move || {
        if !io::stdin().is_terminal() {
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line)?;
            let password = line.trim_end_matches(['\n', '\r']).to_owned();
            if password.is_empty() {
                bail!("no password: give --password, GODWIT_PASSWORD, or a line on stdin");
            }
            return Ok(password);
        }
        let config = Config::builder().color_mode(ColorMode::Forced).auto_add_history(false).build();
        let mut editor: Editor<Masked, DefaultHistory> = Editor::with_config(config)?;
        editor.set_helper(Some(Masked));
        let password = editor.readline("password: ")?;
        if new && editor.readline("once more: ")? != password {
            bail!("the two passwords differ");
        }
        Ok(password)
    })
    .await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_texts_are_announced_as_typing() {
        for text in ["h", "//etc", "/reply yes", "/edit #3 no"] {
            assert!(is_text(text), "{text}");
        }
        for command in ["", "/", "/who", "/recall #3", "/react +1", "/replying"] {
            assert!(!is_text(command), "{command}");
        }
    }
}
