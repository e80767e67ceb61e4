//! The conformance suite of [`cache::Cache`], for both implementations: in memory and in Redis. `redis_faults` tests the
//! behaviour when Redis fails.
//!
//! The URL of Redis comes from `GODWIT_TEST_REDIS`.

#![allow(clippy::unwrap_used, reason = "tests panic when a step fails")]

mod calls;
mod counters;
mod fences;
mod groups;
mod model;
mod presence;
mod redis_faults;
mod routes;
mod support;

/// Defines every test once for each implementation. Each test has a cache of its own.
macro_rules! conformance {
    ($($module:ident: $($test:ident),+;)+) => {
        mod in_memory {
            $($(
                #[tokio::test]
                async fn $test() {
                    crate::$module::$test(&cache::MemoryCache::default()).await;
                }
            )+)+
        }

        mod on_redis {
            $($(
                #[tokio::test]
                async fn $test() {
                    let server = crate::support::TestRedis::new();
                    crate::$module::$test(&server.cache).await;
                    server.clear().await;
                }
            )+)+
        }
    };
}

conformance! {
    counters:
        p4_a_counter_increases_within_its_epoch,
        p4_a_missing_counter_starts_an_epoch,
        p4_each_user_of_each_application_has_a_counter,
        p4_concurrent_increments_all_count,
        p5_connect_returns_the_counter_without_incrementing_it,
        p5_changes_are_the_distinct_subjects_since_a_position,
        p5_changes_since_an_unknown_position_are_not_known,
        p5_an_increment_without_subjects_makes_earlier_positions_unknown,
        p7_the_index_keeps_the_last_changed_subjects;
    routes:
        p5_disconnect_removes_only_the_route_of_that_connection,
        p5_routes_list_each_gateway_once,
        p5_a_route_moves_with_its_connection,
        p9_a_route_expires_unless_its_lease_is_renewed,
        p9_a_later_connection_has_a_larger_order,
        p9_a_renewal_keeps_the_order,
        p9_a_renewal_of_a_lost_route_raises_later_orders;
    presence:
        a_user_is_online_from_the_first_connection_to_the_last,
        a_repeated_call_reports_the_same_transition,
        an_expired_lease_ends_the_presence_at_its_expiry,
        a_presence_text_ends_with_the_last_connection,
        a_watcher_is_listed_until_its_lease_expires,
        p7_a_user_has_a_bounded_number_of_watchers;
    groups:
        p8_an_older_version_of_members_never_replaces_a_newer,
        p8_members_expire_after_their_ttl,
        p8_a_single_member_is_found_with_the_version;
    fences:
        p1_a_fence_covers_its_users_until_it_expires,
        p1_a_fence_ends_soon_after_the_last_removal_is_decided,
        p1_the_absence_of_a_fence_means_nothing_until_two_messages_are_saved,
        p1_two_messages_sent_at_once_do_not_end_the_doubt;
    calls:
        an_empty_request_has_an_empty_result,
        ping_succeeds;
}
