//! Which entries of a conversation a user can see.

use crate::store::Page;

/// The entries that a user can see. Both stores load it for a page of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Visibility {
    /// First visible `conversation_seq`.
    pub(crate) from: i64,
    /// Last visible `conversation_seq` of a user who is not a member any more.
    pub(crate) until: Option<i64>,
    /// The entries of absences, in order: those after the first and before the second number.
    pub(crate) absences: Vec<(i64, i64)>,
}

/// Consecutive visible entries of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// First `conversation_seq`.
    pub(crate) first: i64,
    /// Last `conversation_seq`; the conversation may have fewer entries.
    pub(crate) last: i64,
    /// Whether visible entries follow in the direction of the page, behind an absence.
    pub(crate) more: bool,
}

impl Visibility {
    /// Whether the user can see an entry.
    pub(crate) fn contains(&self, seq: i64) -> bool {
        self.from <= seq
            && seq <= self.until.unwrap_or(i64::MAX)
            && !self.absences.iter().any(|(after, before)| *after < seq && seq < *before)
    }

    /// The entries of a page. A page ends at an absence, so that it never has to skip entries. `None`: there are none.
    pub(crate) fn span(&self, page: Page) -> Option<Span> {
        let until = self.until.unwrap_or(i64::MAX);
        let span = match page {
            Page::After(after) => {
                let mut first = after.checked_add(1)?.max(self.from);
                if let Some((_, before)) = self.absence_at(first) {
                    first = before;
                }
                let next = self.absences.iter().find(|(after, _)| *after >= first);
                Span { first, last: next.map_or(until, |(after, _)| *after), more: next.is_some() }
            }
            Page::Before(before) => {
                let mut last = before.saturating_sub(1).min(until);
                if let Some((after, _)) = self.absence_at(last) {
                    last = after;
                }
                let next = self.absences.iter().rev().find(|(_, before)| *before <= last);
                Span { first: next.map_or(self.from, |(_, before)| *before), last, more: next.is_some() }
            }
        };
        (span.first <= span.last).then_some(span)
    }

    fn absence_at(&self, seq: i64) -> Option<(i64, i64)> {
        self.absences.iter().copied().find(|(after, before)| *after < seq && seq < *before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Entries 3 to 20, without 6 and 7, and without 11.
    fn visibility() -> Visibility {
        Visibility { from: 3, until: Some(20), absences: vec![(5, 8), (10, 12)] }
    }

    #[test]
    fn a_page_ends_at_an_absence() {
        let span = |page| visibility().span(page).map(|span| (span.first, span.last, span.more));
        assert_eq!(span(Page::After(0)), Some((3, 5, true)));
        assert_eq!(span(Page::After(5)), Some((8, 10, true)));
        assert_eq!(span(Page::After(6)), Some((8, 10, true)));
        assert_eq!(span(Page::After(10)), Some((12, 20, false)));
        assert_eq!(span(Page::After(20)), None);
        assert_eq!(span(Page::After(i64::MAX)), None);
        assert_eq!(span(Page::Before(i64::MAX)), Some((12, 20, true)));
        assert_eq!(span(Page::Before(12)), Some((8, 10, true)));
        assert_eq!(span(Page::Before(8)), Some((3, 5, false)));
        assert_eq!(span(Page::Before(3)), None);
        assert_eq!(span(Page::Before(0)), None);
    }

    #[test]
    fn a_member_who_was_never_away_sees_everything_from_the_first_entry() {
        let visibility = Visibility { from: 4, until: None, absences: Vec::new() };
        assert_eq!(visibility.span(Page::After(0)), Some(Span { first: 4, last: i64::MAX, more: false }));
        assert!(visibility.contains(4) && !visibility.contains(3) && visibility.contains(i64::MAX));
    }

    proptest! {
        #[test]
        fn p8_pages_in_both_directions_have_exactly_the_visible_entries(
            from in 1..5i64, until in proptest::option::of(5..40i64),
            cuts in proptest::collection::btree_set(5..39i64, 0..8),
        ) {
            let cuts: Vec<_> = cuts.into_iter().filter(|cut| until.is_none_or(|until| *cut < until)).collect();
            let absences: Vec<_> = cuts.chunks_exact(2).map(|cut| (cut[0], cut[1])).collect();
            let visibility = Visibility { from, until, absences };
            let expected: Vec<_> = (1..50).filter(|seq| visibility.contains(*seq)).collect();
            let (mut ascending, mut after) = (Vec::new(), 0);
            while let Some(span) = visibility.span(Page::After(after)) {
                ascending.extend(span.first..=span.last.min(49));
                prop_assert!(span.more || span.last == until.unwrap_or(i64::MAX));
                after = span.last;
                prop_assert_eq!(span.more, visibility.span(Page::After(after)).is_some());
            }
            prop_assert_eq!(&ascending, &expected);
            let (mut descending, mut before) = (Vec::new(), 50);
            while let Some(span) = visibility.span(Page::Before(before)) {
                descending.extend((span.first..=span.last).rev());
                before = span.first;
                prop_assert_eq!(span.more, visibility.span(Page::Before(before)).is_some());
            }
            descending.reverse();
            prop_assert_eq!(&descending, &expected);
        }
    }
}
