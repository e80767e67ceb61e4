//! Every behaviour of small systems of a server and the devices of a user, with this very [`Sync`].
//!
//! A device has a connection, on which answers arrive in order, and pushes on their way, which arrive in any order or not at
//! all. Faults are limited by a budget, so the number of states is finite.

mod device;
mod server;
mod system;

use server::{Item, Mistake};
use stateright::{Checker as _, HasDiscoveries, Model as _};
use std::time::Instant;
use system::{Faults, System, World};

const ENTRIES: [Item; 3] = [Item::Entry(0), Item::Entry(1), Item::Entry(0)];
const NONE: Faults =
    Faults { lost_pushes: 0, redeliveries: 0, lost_caches: 0, restores: 0, lost_connections: 0 };
const LOST_PUSH: Faults = Faults { lost_pushes: 1, ..NONE };
const REDELIVERY: Faults = Faults { redeliveries: 1, ..NONE };
const LOST_CACHE: Faults = Faults { lost_caches: 1, ..NONE };
const RESTORE: Faults = Faults { restores: 1, ..NONE };
const LOST_CONNECTION: Faults = Faults { lost_connections: 1, ..NONE };

/// Checks every state. Prints how many there are.
fn check(plan: [Item; 3], devices: usize, up_to_date: bool, faults: Faults) {
    let began = Instant::now();
    let system = System { plan: plan.to_vec(), devices, up_to_date, faults, mistake: Mistake::Nothing };
    let checker = system.checker().symmetry_fn(World::representative).spawn_dfs().join();
    println!("{devices} devices, {faults:?}: {} states, {:?}", checker.unique_state_count(), began.elapsed());
    checker.assert_properties();
}

#[test]
fn p4_p5_two_devices_catch_up_after_a_lost_push() {
    check(ENTRIES, 2, true, LOST_PUSH);
}

#[test]
fn p4_p5_a_new_device_catches_up_after_a_lost_connection() {
    check(ENTRIES, 1, false, LOST_CONNECTION);
}

#[test]
fn p4_p5_two_devices_catch_up_after_a_restore() {
    check(ENTRIES, 2, true, RESTORE);
}

#[test]
fn p4_p5_a_new_device_catches_up_after_a_redelivery_or_a_lost_cache() {
    for faults in [REDELIVERY, LOST_CACHE] {
        check(ENTRIES, 1, false, faults);
    }
}

#[test]
#[ignore = "more than a million states take several minutes"]
fn p4_p5_two_devices_catch_up_after_a_redelivery_or_a_lost_cache() {
    for faults in [REDELIVERY, LOST_CACHE] {
        check(ENTRIES, 2, true, faults);
    }
}

#[test]
fn p4_p5_a_new_device_catches_up_after_two_faults() {
    let pairs = [
        Faults { redeliveries: 1, ..LOST_PUSH },
        Faults { restores: 1, ..LOST_PUSH },
        Faults { lost_connections: 1, ..LOST_PUSH },
        Faults { restores: 1, ..LOST_CACHE },
        Faults { lost_connections: 1, ..RESTORE },
    ];
    for faults in pairs {
        check([Item::Entry(0), Item::Update, Item::Entry(0)], 1, false, faults);
    }
}

#[test]
fn p5_devices_end_with_the_newer_of_two_concurrent_updates() {
    for faults in [NONE, LOST_PUSH, LOST_CONNECTION] {
        check([Item::Updates, Item::Entry(0), Item::Update], 1, true, faults);
    }
    check([Item::Updates, Item::Update, Item::Updates], 1, false, NONE);
}

#[test]
#[ignore = "800,000 states take about two minutes"]
fn p4_p5_a_device_catches_up_after_all_faults() {
    let all = Faults { lost_pushes: 1, redeliveries: 1, lost_caches: 1, restores: 1, lost_connections: 1 };
    check([Item::Entry(0), Item::Update, Item::Entry(0)], 1, true, all);
}

#[test]
fn each_planted_mistake_is_found() {
    let updates = [Item::Updates, Item::Entry(0), Item::Entry(1)];
    for (mistake, plan, faults) in [
        (Mistake::RaisedBeforeStored, ENTRIES, NONE),
        (Mistake::SeqReadAfterHeads, ENTRIES, NONE),
        (Mistake::EpochKept, ENTRIES, LOST_CACHE),
        (Mistake::GenerationKept, ENTRIES, RESTORE),
        (Mistake::WrittenStatePushed, updates, NONE),
    ] {
        let system = System { plan: plan.to_vec(), devices: 1, up_to_date: false, faults, mistake };
        let checker = system.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let found: Vec<_> = checker.discoveries().into_keys().filter(|name| name.starts_with('P')).collect();
        println!("{mistake:?}: {found:?} after {} states", checker.unique_state_count());
        assert!(!found.is_empty(), "{mistake:?} is not found");
    }
}
