//! Names that people choose and others see, such as those of groups.

use crate::error::ApiError;
use unicode_normalization::UnicodeNormalization as _;
use unicode_properties::{
    GeneralCategory as Category, GeneralCategoryGroup as Group, UnicodeGeneralCategory as _,
};

/// Letters and symbols of Unicode that have no ink: the fillers of Hangul and the empty braille pattern.
const BLANKS: [char; 5] = ['\u{115f}', '\u{1160}', '\u{3164}', '\u{ffa0}', '\u{2800}'];

/// Checks a name and returns its Unicode normalisation form C, in which equal names are equal bytes.
///
/// A name has 1 to `max` characters (Unicode code points of the normalised name), at least one of them visible. Control
/// characters, line separators and the controls of text direction are refused: they would change the text around the name on
/// the screens of others.
///
/// # Errors
/// `INVALID_REQUEST` with `field`, the name's place in the request.
pub fn check(field: &str, name: &str, max: usize) -> Result<String, ApiError> {
    let name: String = name.nfc().collect();
    let length = name.chars().count();
    if !(1..=max).contains(&length) {
        return Err(ApiError::invalid(format!(
            "{field} must have 1 to {max} characters; this one has {length}"
        )));
    }
    if let Some(refused) = name.chars().find(|&character| is_refused(character)) {
        return Err(ApiError::invalid(format!(
            "{field} must not contain U+{:04X}: control characters, line breaks and controls of text direction are refused",
            u32::from(refused)
        )));
    }
    if !name.chars().any(is_visible) {
        return Err(ApiError::invalid(format!("{field} must contain at least one visible character")));
    }
    Ok(name)
}

fn is_refused(character: char) -> bool {
    matches!(
        character.general_category(),
        Category::Control | Category::LineSeparator | Category::ParagraphSeparator
    ) || is_direction_control(character)
}

/// Whether a character is one of the controls of the Unicode bidirectional algorithm (`Bidi_Control`): marks, embeddings,
/// overrides and isolates. They are invisible and can reorder the text around them.
pub fn is_direction_control(character: char) -> bool {
    matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

fn is_visible(character: char) -> bool {
    let has_ink = matches!(
        character.general_category_group(),
        Group::Letter | Group::Number | Group::Punctuation | Group::Symbol
    ) || character.general_category() == Category::PrivateUse;
    has_ink && !BLANKS.contains(&character)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_names_become_equal_bytes() {
        assert_eq!(check("name", "Cafe\u{301}", 4).unwrap(), "Caf\u{e9}");
        assert_eq!(check("name", "Caf\u{e9}", 4).unwrap(), "Caf\u{e9}");
    }

    #[test]
    fn names_in_all_scripts_are_accepted() {
        let family = "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}";
        let persian = "\u{645}\u{6cc}\u{200c}\u{62e}\u{648}\u{627}\u{647}\u{645}";
        for name in [
            "a",
            "the two of us",
            "\u{5e9}\u{5dc}\u{5d5}\u{5dd}",
            persian,
            family,
            "\u{2764}\u{fe0f}",
            "...",
            " a ",
        ] {
            assert_eq!(check("name", name, 64).unwrap(), name);
        }
    }

    #[test]
    fn p8_names_that_nobody_can_see_are_refused() {
        let names = [
            " ",
            "\u{a0}\u{3000}",
            "\u{200b}\u{200d}\u{feff}",
            "\u{ad}",
            "\u{301}",
            "\u{fe0f}",
            "\u{3164}",
            "\u{2800}",
        ];
        for name in names {
            let error = check("name", name, 64).unwrap_err();
            assert_eq!(error.message, "name must contain at least one visible character", "{name:?}");
        }
    }

    #[test]
    fn p8_names_that_change_the_text_around_them_are_refused() {
        for (character, code) in [
            ('\0', "U+0000"),
            ('\n', "U+000A"),
            ('\u{1b}', "U+001B"),
            ('\u{85}', "U+0085"),
            ('\u{2028}', "U+2028"),
            ('\u{202e}', "U+202E"),
            ('\u{2066}', "U+2066"),
            ('\u{200f}', "U+200F"),
        ] {
            let error = check("name", &format!("a{character}b"), 64).unwrap_err();
            assert!(
                error.message.starts_with(&format!("name must not contain {code}:")),
                "{}",
                error.message
            );
        }
    }

    #[test]
    fn p7_the_length_of_a_name_is_counted_in_normalised_characters() {
        check("name", &"\u{1f389}".repeat(128), 128).unwrap();
        check("name", &"e\u{301}".repeat(128), 128).unwrap();
        for (name, length) in [("x".repeat(129), 129), (String::new(), 0)] {
            let error = check("name", &name, 128).unwrap_err();
            assert_eq!(error.message, format!("name must have 1 to 128 characters; this one has {length}"));
        }
    }

    proptest! {
        #[test]
        fn an_accepted_name_is_accepted_again_unchanged(name in "\\PC{0,40}") {
            if let Ok(name) = check("name", &name, 64) {
                prop_assert_eq!(check("name", &name, 64).unwrap(), name);
            }
        }
    }
}
