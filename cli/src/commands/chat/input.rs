//! The lines that a person types into a chat: texts and commands.

/// What `/help` prints.
pub(super) const HELP: &str = concat!(
    "  /reply [#N] TEXT     answer message #N, or the last one of somebody else\n",
    "  /edit [#N] TEXT      replace your message #N, or your last one\n",
    "  /recall [#N]         take back message #N, or your last one\n",
    "  /react [#N] [R...]   react to message #N, or to the last one of somebody else;\n",
    "                       without R, take your reactions back\n",
    "  /history [COUNT]     show the last messages as they are now, with their numbers\n",
    "  /who                 show who is here\n",
    "  //TEXT               send a text that begins with a slash",
);

/// Messages that `/history` shows.
const HISTORY: usize = 20;

/// A line. The number is that of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    Text(String),
    Reply(Option<u64>, String),
    Edit(Option<u64>, String),
    Recall(Option<u64>),
    React(Option<u64>, Vec<String>),
    History(usize),
    Who,
    Help,
    /// Not a command; the sentence says why.
    Wrong(String),
}

impl Input {
    pub(super) fn parse(line: &str) -> Self {
        let Some(command) = line.strip_prefix('/') else { return Self::Text(line.to_owned()) };
        if command.starts_with('/') {
            return Self::Text(command.to_owned());
        }
        let (name, rest) = split(command);
        let (seq, text) = number(rest);
        let some = |input: fn(Option<u64>, String) -> Self| match text {
            "" => Self::Wrong(format!("/{name} needs a text; /help shows how")),
            text => input(seq, text.to_owned()),
        };
        match name {
            "reply" => some(Self::Reply),
            "edit" => some(Self::Edit),
            "recall" => Self::Recall(seq),
            "react" => Self::React(seq, text.split_whitespace().map(str::to_owned).collect()),
            "history" if rest.is_empty() => Self::History(HISTORY),
            "history" => match rest.parse() {
                Ok(count) => Self::History(count),
                Err(_) => Self::Wrong(format!("{rest} is not a number of messages")),
            },
            "who" => Self::Who,
            "help" => Self::Help,
            _ => Self::Wrong(format!("/{name} is not a command; /help lists them, //{name} sends the text")),
        }
    }
}

/// The first word, and the rest without the space between them.
fn split(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim())
}

/// A leading `#N`, and the rest.
fn number(text: &str) -> (Option<u64>, &str) {
    let (word, rest) = split(text);
    match word.strip_prefix('#').and_then(|digits| digits.parse().ok()) {
        Some(seq) => (Some(seq), rest),
        None => (None, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_texts_or_commands() {
        let text = |text: &str| text.to_owned();
        for (line, input) in [
            ("hello", Input::Text(text("hello"))),
            ("//etc/hosts", Input::Text(text("/etc/hosts"))),
            ("/reply yes, I do", Input::Reply(None, text("yes, I do"))),
            ("/edit #12 new  text", Input::Edit(Some(12), text("new  text"))),
            ("/edit #new", Input::Edit(None, text("#new"))),
            ("/recall", Input::Recall(None)),
            ("/recall #3", Input::Recall(Some(3))),
            ("/react #3 +1 !", Input::React(Some(3), vec![text("+1"), text("!")])),
            ("/react", Input::React(None, Vec::new())),
            ("/history", Input::History(20)),
            ("/history 5", Input::History(5)),
            ("/who", Input::Who),
            ("/help", Input::Help),
        ] {
            assert_eq!(Input::parse(line), input, "{line}");
        }
        for line in ["/", "/edit", "/edit #4", "/history all", "/fly"] {
            assert!(matches!(Input::parse(line), Input::Wrong(_)), "{line}");
        }
    }
}
