//! The answers to the requests of [`Sync`].

use super::{Change, Request, Sink, Sync};
use crate::state::Have;
use abi::{
    ApiError,
    v1::{Changes, Entry, Head, HistoryPage},
};

impl Sync {
    /// A page of changes arrived. A page that the sink does not accept is requested again.
    pub fn on_changes(&mut self, page: Changes, capacity: usize, sink: &mut impl Sink) {
        let Some(scan) = self.scan.as_mut().filter(|scan| scan.in_flight) else { return };
        scan.in_flight = false;
        let (have, epoch, is_first) = (scan.have.map(Have::from), scan.epoch, scan.cursor.is_empty());
        let now = Have::from(page.receiver_seq.unwrap_or_default());
        // A faulty server must not cause an endless loop of requests.
        let next = Some(page.next.clone()).filter(|next| !next.is_empty() && *next != scan.cursor);
        let heads: Vec<Head> = page.heads.iter().map(seqs).collect();
        let is_news = page.everything || !heads.is_empty() || page.profile.is_some() || page.blocks.is_some();
        if is_news && sink.offer(Change::Changes(Box::new(page))).is_some() {
            return;
        }
        if is_first {
            self.on_now(have, epoch, now);
        }
        for head in heads {
            self.on_head(head);
        }
        // Before the end of a rewind: entries must not reach the application before it knows that positions went back.
        let mut free = capacity.saturating_sub(self.reserved() + usize::from(is_news));
        self.take_early(&mut free, sink);
        match (next, self.scan.as_mut()) {
            (Some(next), Some(scan)) => scan.cursor = next,
            _ => {
                self.scan = None;
                self.baseline = false;
                self.end_rewind();
            }
        }
    }

    /// The pages that begin with this one have all changes up to `now`. `have` was in the request, and `epoch` was the last
    /// one that the server had reported by then.
    fn on_now(&mut self, have: Option<Have>, epoch: Option<u32>, now: Have) {
        let went_back = have.is_some_and(|have| have.epoch == now.epoch && have.seq > now.seq);
        match &mut self.known {
            // Deliveries may have arrived since the request.
            Some(known) if known.epoch == now.epoch && !went_back => known.seq = known.seq.max(now.seq),
            known => *known = Some(now),
        }
        match &mut self.latest {
            Some(latest) if latest.epoch == now.epoch && !went_back => latest.seq = latest.seq.max(now.seq),
            latest => {
                // An epoch that began after the request: the answer may be older.
                self.is_overdue |=
                    latest.is_some_and(|latest| latest.epoch != now.epoch && epoch != Some(latest.epoch));
                *latest = Some(now);
            }
        }
    }

    fn on_head(&mut self, head: Head) {
        let before_visible = head.visible_from.saturating_sub(1);
        self.rewind_to(&head);
        match self.positions.get_mut(&head.conversation) {
            Some(position) => *position = (*position).max(before_visible),
            None => {
                let from = if self.baseline { head.conversation_seq } else { before_visible };
                if self.baseline {
                    self.new_positions.insert(head.conversation.clone(), from);
                }
                self.positions.insert(head.conversation.clone(), from);
            }
        }
        if self.positions[&head.conversation] < head.conversation_seq {
            self.gaps.add(head.conversation, head.conversation_seq);
        }
    }

    /// A page of history arrived. Entries that the sink does not accept are requested again.
    pub fn on_history(&mut self, conversation: &str, page: HistoryPage, sink: &mut impl Sink) {
        let Some(requested) = self.gaps.answered(conversation) else { return };
        let position = self.positions.entry(conversation.to_owned()).or_insert(0);
        // Entries of the page may have been delivered since the request.
        let is_new =
            |entry: &Entry| entry.conversation == conversation && entry.conversation_seq > requested.after;
        let is_progress = page.entries.iter().any(is_new);
        let mut is_full = false;
        for entry in page.entries {
            // A jump within the page is a part that the user may not see, such as an absence between two memberships. Entries of
            // other conversations were not requested.
            let seq = entry.conversation_seq;
            if entry.conversation == conversation && seq > *position {
                is_full = sink.offer(Change::Entry(Box::new(entry))).is_some();
                if is_full {
                    break;
                }
                *position = seq;
            }
        }
        // Without progress, "more" is ignored: a faulty server must not cause an endless loop of requests.
        let more = is_full || page.more && is_progress;
        self.gaps.close_or_requeue(conversation, *position, requested, more);
    }

    /// A request failed. If the error is retryable, [`Sync::next_request`] returns the request again.
    pub fn on_failed(&mut self, request: &Request, error: &ApiError) {
        match request {
            Request::Changes { .. } if error.code.is_retryable() => {
                if let Some(scan) = self.scan.as_mut() {
                    scan.in_flight = false;
                }
            }
            Request::Changes { .. } => {
                // The cursor is not valid any more. The pages that were not read belong to `known`.
                self.scan = None;
                self.known = self.have;
                self.is_overdue = true;
            }
            Request::History { conversation, .. } => {
                self.gaps.failed(conversation, error.code.is_retryable());
            }
        }
    }

    /// Moves `have` to `known` if everything up to there has arrived; returns it if it moved.
    pub fn advance(&mut self) -> Option<Have> {
        if self.scan.is_some() || self.rewind.is_some() || !self.gaps.is_empty() || self.known == self.have {
            return None;
        }
        self.have = self.known;
        self.have
    }
}

/// The members of a head that the synchronisation needs.
fn seqs(head: &Head) -> Head {
    Head {
        conversation: head.conversation.clone(),
        conversation_seq: head.conversation_seq,
        visible_from: head.visible_from,
        kept_seq: head.kept_seq,
        ..Head::default()
    }
}
