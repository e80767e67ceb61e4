//! Divides a push for many users into one push per gateway, each with only the users and entries of that gateway. Outcomes go to
//! the gateways that they name.

use abi::v1::{PushRequest, PushedSignal};
use std::{collections::HashMap, mem, sync::Arc};

/// Marks an entry that no user at a gateway receives.
const UNUSED: u32 = u32::MAX;

/// All users of a push: those of `receivers`, then those of the signals. [`split`] expects their routes in this order.
pub(crate) fn users(request: &PushRequest) -> Vec<&str> {
    let receivers = request.receivers.iter().map(|receiver| receiver.user.as_str());
    let signalled = request.signals.iter().flat_map(|signal| signal.users.iter().map(String::as_str));
    receivers.chain(signalled).collect()
}

/// The push for each gateway that holds a connection of any of the users or that waits for an outcome.
pub(crate) fn split(mut request: PushRequest, routes: &[Vec<Arc<str>>]) -> Vec<(Arc<str>, PushRequest)> {
    let (app, outcomes) = (request.app.clone(), mem::take(&mut request.outcomes));
    let mut pushes = split_users(request, routes);
    for outcome in outcomes {
        let gateway = outcome.gateway.as_str();
        let index = pushes.iter().position(|(to, _)| **to == *gateway).unwrap_or_else(|| {
            pushes.push((gateway.into(), PushRequest { app: app.clone(), ..PushRequest::default() }));
            pushes.len() - 1
        });
        pushes[index].1.outcomes.push(outcome);
    }
    pushes
}

fn split_users(request: PushRequest, routes: &[Vec<Arc<str>>]) -> Vec<(Arc<str>, PushRequest)> {
    let mut gateways: HashMap<&Arc<str>, usize> = HashMap::new();
    for gateway in routes.iter().flatten() {
        let next = gateways.len();
        gateways.entry(gateway).or_insert(next);
    }
    match gateways.len() {
        0 => Vec::new(),
        // The fast path of the one-process program: nothing is copied.
        1 => {
            let gateway = routes.iter().flatten().next().map(Arc::clone);
            gateway.map(|gateway| (gateway, reduce(request, routes))).into_iter().collect()
        }
        _ => distribute(request, routes, &gateways),
    }
}

/// Keeps the users who have a route, and their entries.
fn reduce(mut request: PushRequest, routes: &[Vec<Arc<str>>]) -> PushRequest {
    let mut online = routes.iter().map(|gateways| !gateways.is_empty());
    let mut keep = || online.next().unwrap_or(false);
    request.receivers.retain(|_| keep());
    for signal in &mut request.signals {
        signal.users.retain(|_| keep());
    }
    request.signals.retain(|signal| !signal.users.is_empty());
    let numbers = renumber(&mut request);
    let mut numbers = numbers.iter();
    request.entries.retain(|_| numbers.next().is_some_and(|number| *number != UNUSED));
    request
}

/// Makes a separate push for each gateway.
fn distribute(
    request: PushRequest,
    routes: &[Vec<Arc<str>>],
    gateways: &HashMap<&Arc<str>, usize>,
) -> Vec<(Arc<str>, PushRequest)> {
    let empty = || PushRequest { app: request.app.clone(), ..PushRequest::default() };
    let mut pushes: Vec<_> = std::iter::repeat_with(empty).take(gateways.len()).collect();
    let mut routes = routes.iter();
    for receiver in request.receivers {
        for gateway in routes.next().into_iter().flatten() {
            pushes[gateways[gateway]].receivers.push(receiver.clone());
        }
    }
    for mut signal in request.signals {
        let users = mem::take(&mut signal.users);
        let mut users_by_gateway: HashMap<usize, Vec<String>> = HashMap::new();
        for user in users {
            for gateway in routes.next().into_iter().flatten() {
                users_by_gateway.entry(gateways[gateway]).or_default().push(user.clone());
            }
        }
        for (gateway, users) in users_by_gateway {
            pushes[gateway].signals.push(PushedSignal { users, ..signal.clone() });
        }
    }
    for push in &mut pushes {
        push.entries.reserve(request.entries.len());
        let numbers = renumber_among(push, request.entries.len());
        let needed = request.entries.iter().zip(numbers).filter(|(_, number)| *number != UNUSED);
        push.entries.extend(needed.map(|(entry, _)| entry.clone()));
    }
    let mut pushes: Vec<_> = pushes.into_iter().map(Some).collect();
    let take = |(gateway, number): (&&Arc<str>, &usize)| Some((Arc::clone(gateway), pushes[*number].take()?));
    gateways.iter().filter_map(take).collect()
}

fn renumber(request: &mut PushRequest) -> Vec<u32> {
    let entries = request.entries.len();
    renumber_among(request, entries)
}

/// Rewrites the receivers' indexes so that they count only the entries that some receiver gets. Returns the new index of each
/// entry. Indexes of entries that don't exist are dropped.
fn renumber_among(request: &mut PushRequest, entries: usize) -> Vec<u32> {
    let mut numbers = vec![UNUSED; entries];
    for receiver in &mut request.receivers {
        receiver.entries.retain(|index| match numbers.get_mut(*index as usize) {
            Some(number) => {
                *number = 0;
                true
            }
            None => false,
        });
    }
    for (number, next) in numbers.iter_mut().filter(|number| **number != UNUSED).zip(0..) {
        *number = next;
    }
    for index in request.receivers.iter_mut().flat_map(|receiver| &mut receiver.entries) {
        *index = numbers[*index as usize];
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::v1::{Outcome, PushedEntry, Receiver, ReceiverSeq};
    use proptest::{collection::vec, prelude::*, sample::subsequence};
    use std::collections::BTreeSet;

    fn receiver(user: String, entries: Vec<u32>) -> Receiver {
        let receiver_seq = Some(ReceiverSeq { epoch: 1, seq: 9 });
        Receiver { user, receiver_seq, raised: entries.len() as u32 + 1, entries, updates: Vec::new() }
    }

    fn entry(number: u64) -> PushedEntry {
        PushedEntry { message_id: number.to_string(), ..PushedEntry::default() }
    }

    fn outcome(gateway: &str, message_id: &str) -> Outcome {
        Outcome { gateway: gateway.into(), message_id: message_id.into(), result: None }
    }

    /// A push of up to 8 entries to up to 6 users, signals to up to 3 of them, and where the users are.
    fn pushes() -> impl Strategy<Value = (PushRequest, Vec<Vec<Arc<str>>>)> {
        let gateways = (1usize..4).prop_flat_map(|count| {
            let names: Vec<Arc<str>> = (0..count).map(|number| format!("gw:{number}").into()).collect();
            vec(subsequence(names.clone(), 0..=names.len()), 0..9)
        });
        (vec(subsequence((0..8u32).collect::<Vec<_>>(), 0..8), 0..6), gateways).prop_map(
            |(shares, mut routes)| {
                let receivers: Vec<_> = shares
                    .into_iter()
                    .enumerate()
                    .map(|(number, entries)| receiver(format!("u{number}"), entries))
                    .collect();
                routes.resize(routes.len().max(receivers.len()), Vec::new());
                let users: Vec<_> =
                    (receivers.len()..routes.len()).map(|number| format!("u{number}")).collect();
                let signals = users
                    .chunks(2)
                    .zip(1u8..)
                    .map(|(users, number)| PushedSignal {
                        signal: vec![number].into(),
                        users: users.to_vec(),
                    })
                    .collect();
                let entries = (0..8).map(entry).collect();
                (PushRequest { app: "app".into(), entries, receivers, signals, outcomes: Vec::new() }, routes)
            },
        )
    }

    /// Each receiver of a push at a gateway, with its entries, as text.
    fn shares(gateway: &str, push: &PushRequest) -> BTreeSet<String> {
        let entries = push.receivers.iter().map(|receiver| {
            let ids: Vec<_> =
                receiver.entries.iter().map(|index| &*push.entries[*index as usize].message_id).collect();
            format!("{gateway} {} {:?} {} {ids:?}", receiver.user, receiver.receiver_seq, receiver.raised)
        });
        let signals = push.signals.iter().flat_map(|signal| {
            signal.users.iter().map(move |user| format!("{gateway} {user} signal {:?}", signal.signal))
        });
        entries.chain(signals).collect()
    }

    proptest! {
        #[test]
        fn p5_every_user_gets_the_same_at_each_gateway_and_no_gateway_gets_more((push, routes) in pushes()) {
            let mut expected = BTreeSet::new();
            for gateway in routes.iter().flatten() {
                let mut alone = push.clone();
                let mut here = routes.iter().map(|gateways| gateways.contains(gateway));
                alone.receivers.retain(|_| here.next().unwrap());
                alone.signals.iter_mut().for_each(|signal| signal.users.retain(|_| here.next().unwrap()));
                expected.extend(shares(gateway, &alone));
            }
            let parts = split(push, &routes);
            let mut found = BTreeSet::new();
            for (gateway, part) in &parts {
                prop_assert_eq!(part.app.as_str(), "app");
                found.extend(shares(gateway, part));
                let used: BTreeSet<_> = part.receivers.iter().flat_map(|receiver| &receiver.entries).collect();
                prop_assert_eq!(used.len(), part.entries.len(), "an entry without a receiver");
                for receiver in &part.receivers {
                    prop_assert!(receiver.entries.is_sorted());
                }
            }
            prop_assert_eq!(found, expected);
            let gateways: BTreeSet<_> = routes.iter().flatten().collect();
            prop_assert_eq!(parts.len(), gateways.len());
        }
    }

    #[test]
    fn an_outcome_goes_to_its_gateway_with_or_without_receivers_there() {
        let push = PushRequest {
            receivers: vec![receiver("alice".into(), Vec::new())],
            outcomes: vec![outcome("gw:1", "a"), outcome("gw:2", "b"), outcome("gw:2", "c")],
            ..PushRequest::default()
        };
        let mut parts = split(push, &[vec!["gw:1".into()]]);
        parts.sort_by(|(a, _), (b, _)| a.cmp(b));
        let ids = |push: &PushRequest| push.outcomes.iter().map(|o| o.message_id.clone()).collect::<Vec<_>>();
        let found: Vec<_> = parts.iter().map(|(to, push)| (&**to, push.receivers.len(), ids(push))).collect();
        assert_eq!(found, [("gw:1", 1, vec!["a".into()]), ("gw:2", 0, vec!["b".into(), "c".into()])]);
    }

    #[test]
    fn an_index_without_an_entry_is_dropped() {
        let push = PushRequest {
            entries: vec![entry(1)],
            receivers: vec![receiver("alice".into(), vec![0, 7])],
            ..PushRequest::default()
        };
        let parts = split(push, &[vec!["gw:1".into()]]);
        assert_eq!(parts[0].1.receivers[0].entries, [0]);
    }
}
