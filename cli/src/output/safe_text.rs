//! Makes text of other users and of servers safe for a terminal.

use abi::names::is_direction_control;
use unicode_bidi::{BidiClass, bidi_class};

/// The left-to-right mark, which is invisible. It ends a piece of right-to-left text, so that the piece does not reorder what
/// follows on the line. The isolates of Unicode would do the same, but many terminals don't know them.
const LEFT_TO_RIGHT_MARK: char = '\u{200e}';

/// Replaces the characters that control a terminal or reorder a line: control characters other than tabs and line feeds, line
/// separators, and controls of text direction other than the left-to-right mark.
pub(super) fn clean(text: &str) -> String {
    let is_safe = |character: char| match character {
        '\n' | '\t' | LEFT_TO_RIGHT_MARK => true,
        '\u{2028}' | '\u{2029}' => false,
        _ => !character.is_control() && !is_direction_control(character),
    };
    text.chars().map(|character| if is_safe(character) { character } else { '\u{fffd}' }).collect()
}

/// A text of another user as part of a line: cleaned, with the direction of its surroundings restored after right-to-left text,
/// and with further lines indented, so that none looks like a line of this program.
pub(crate) fn printable(text: &str) -> String {
    let lines: Vec<_> = clean(text).split('\n').map(enclose).collect();
    lines.join("\n    ")
}

/// Puts a line with right-to-left text between left-to-right marks.
fn enclose(line: &str) -> String {
    let is_right_to_left = |character| matches!(bidi_class(character), BidiClass::R | BidiClass::AL);
    if line.contains(is_right_to_left) {
        format!("{LEFT_TO_RIGHT_MARK}{line}{LEFT_TO_RIGHT_MARK}")
    } else {
        line.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p8_control_characters_and_direction_controls_are_replaced() {
        assert_eq!(clean("a\tb\nc"), "a\tb\nc");
        for character in [
            '\0', '\r', '\u{7}', '\u{1b}', '\u{7f}', '\u{9b}', '\u{2028}', '\u{202e}', '\u{2066}', '\u{200f}',
        ] {
            assert_eq!(clean(&format!("a{character}b")), "a\u{fffd}b", "{character:?}");
        }
    }

    #[test]
    fn right_to_left_text_does_not_reorder_the_rest_of_the_line() {
        let hebrew = "\u{5e9}\u{5dc}\u{5d5}\u{5dd}";
        assert_eq!(printable(hebrew), format!("\u{200e}{hebrew}\u{200e}"));
        assert_eq!(printable(&format!("a\n{hebrew}")), format!("a\n    \u{200e}{hebrew}\u{200e}"));
        assert_eq!(printable("caf\u{e9} \u{1f389}"), "caf\u{e9} \u{1f389}");
        assert_eq!(clean(&printable(hebrew)), printable(hebrew));
    }
}
