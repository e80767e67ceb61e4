//! One suite over both logs: what the promises of the crate say must hold for the embedded log and for Apache Kafka.
//! Kafka's address comes from `GODWIT_TEST_KAFKA`.
#![expect(clippy::unwrap_used, reason = "all of this is tests, also what is not marked as one")]

mod backend;
mod beginning;
mod committing;
mod embedded;
mod failing;
mod giving_up;
mod handling;
mod kafka;
mod keyed;
mod letters;
mod metered;
mod observing;
mod producing;
mod rebalancing;
mod runtime;
mod support;
mod topics;
mod transforming;

/// Every test of the suite, once for each backend.
macro_rules! conformance {
    ($($module:ident :: $test:ident,)*) => {
        mod on_the_embedded_log {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                crate::$module::$test(crate::backend::Embedded::new()).await;
            })*
        }
        mod on_kafka {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                crate::$module::$test(crate::backend::Kafka::new().await).await;
            })*
        }
    };
}

conformance! {
    handling::everything_acknowledged_is_handled_in_order_per_key,
    handling::what_comes_out_is_what_went_in,
    handling::a_failing_batch_is_retried_and_nothing_overtakes_it,
    handling::other_partitions_go_on_while_one_fails,
    handling::a_panic_is_a_failure_like_others,
    handling::rejected_records_reach_the_dead_letters_and_the_partition_goes_on,
    handling::a_batch_is_what_queued_up_within_the_limit,
    handling::a_partition_that_falls_behind_loses_nothing,
    keyed::keys_are_handled_at_the_same_time_and_each_in_order,
    keyed::a_key_that_fails_holds_back_only_itself_and_the_commit,
    keyed::the_commit_never_passes_a_record_that_is_not_done,
    giving_up::a_record_whose_attempts_are_used_up_is_a_dead_letter_and_the_order_goes_on,
    giving_up::the_same_with_order_per_key,
    giving_up::of_a_rejected_batch_only_the_bad_records_go,
    giving_up::of_a_batch_whose_attempts_are_used_up_only_the_bad_records_go,
    giving_up::without_dead_letters_a_rejected_record_waits_and_is_never_skipped,
    giving_up::a_batch_waits_to_fill_as_long_as_it_may,
    committing::a_restart_goes_on_from_what_was_committed,
    committing::what_was_not_committed_is_delivered_again,
    committing::commits_never_pass_an_unhandled_record,
    committing::nothing_is_committed_while_the_hook_fails,
    committing::a_drain_finishes_and_commits_the_batch_in_flight,
    committing::a_drain_does_not_wait_for_ever,
    beginning::a_new_group_can_begin_with_what_comes_after_it,
    beginning::a_new_group_can_begin_at_a_time,
    beginning::a_group_that_has_committed_goes_on_from_there,
    letters::a_letter_is_listed_replayed_through_the_handler_and_gone,
    letters::a_letter_that_fails_again_is_a_new_letter_and_a_replay_of_all_ends,
    letters::a_replay_keeps_the_order_of_each_key,
    letters::letters_come_in_pages_and_can_be_selected,
    letters::a_replay_that_is_cut_off_leaves_the_letter,
    letters::what_is_closed_at_the_beginning_is_removed,
    letters::processes_see_what_others_have_done,
    letters::what_is_no_letter_is_shown_and_can_be_dropped,
    metered::what_a_consumer_does_is_counted,
    observing::an_observer_hears_of_everything,
    observing::an_observer_hears_of_offsets_that_are_written_with_outputs,
    observing::consumers_with_topics_of_their_own_run_side_by_side,
    producing::callbacks_are_called_exactly_once_in_order,
    producing::a_dropped_producer_answers_everything,
    producing::flush_waits_for_every_answer,
    producing::a_record_that_is_too_large_is_refused,
    transforming::what_is_made_exists_once_though_consumers_are_killed,
    transforming::a_failed_attempt_writes_nothing,
    transforming::of_a_rejected_batch_the_good_records_are_written_once,
    transforming::a_record_whose_output_is_refused_is_a_dead_letter,
}
