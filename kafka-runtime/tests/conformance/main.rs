//! One suite for both logs: the embedded log and Apache Kafka must keep the same promises. The address of Kafka
//! comes from `GODWIT_TEST_KAFKA`.
#![expect(clippy::unwrap_used, reason = "test code, including helpers that are not marked as tests")]

mod backend;
mod commits;
mod dead_letters;
mod embedded;
mod final_failures;
mod handling;
mod kafka;
mod keyed;
mod long_failure;
mod metric_values;
mod observing;
mod producing;
mod rebalancing;
mod runtime;
mod start_offset;
mod support;
mod topics;
mod transforming;

/// Defines every test once for each backend.
macro_rules! conformance {
    ($($module:ident: $($test:ident),+;)+) => {
        mod on_the_embedded_log {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    crate::$module::$test(crate::backend::Embedded::new()).await;
                }
            )+)+
        }

        mod on_kafka {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    crate::$module::$test(crate::backend::Kafka::new().await).await;
                }
            )+)+
        }
    };
}

conformance! {
    handling:
        everything_acknowledged_is_handled_in_order_per_key,
        a_record_is_delivered_unchanged,
        a_failing_batch_is_retried_and_nothing_overtakes_it,
        other_partitions_continue_while_one_fails,
        a_panic_is_retried_like_any_failure,
        rejected_records_are_dead_lettered_and_the_partition_continues,
        a_batch_takes_the_queued_records_up_to_the_limit,
        a_partition_that_falls_behind_loses_no_record;
    keyed:
        keys_are_handled_concurrently_and_each_in_order,
        a_failing_key_delays_only_itself_and_the_commit,
        the_commit_never_passes_an_unprocessed_record;
    final_failures:
        a_record_out_of_attempts_is_dead_lettered_and_the_order_holds,
        with_order_per_key_a_record_out_of_attempts_is_dead_lettered,
        only_the_bad_records_of_a_rejected_batch_are_dead_lettered,
        only_the_bad_records_of_a_batch_out_of_attempts_are_dead_lettered,
        without_a_dead_letter_topic_a_rejected_record_waits_and_is_not_skipped,
        a_batch_waits_up_to_batch_wait_to_fill;
    commits:
        a_restart_resumes_at_the_committed_offset,
        uncommitted_records_are_delivered_again,
        commits_never_pass_an_unhandled_record,
        nothing_is_committed_while_the_hook_fails,
        a_drain_finishes_and_commits_the_batch_in_flight,
        a_drain_ends_at_its_deadline;
    start_offset:
        a_new_group_can_start_with_the_next_record,
        a_new_group_can_start_at_a_given_time,
        a_group_with_committed_offsets_resumes_there,
        a_consumer_begins_at_the_offset_that_its_hook_chooses,
        nothing_is_read_while_the_hook_for_the_start_offset_fails,
        a_consumer_stops_while_the_hook_for_the_start_offset_fails,
        the_first_start_offset_of_a_group_is_committed_before_it_reads;
    dead_letters:
        a_letter_is_listed_then_replayed_through_the_handler_and_closed,
        a_replayed_letter_that_fails_is_a_new_letter_and_replaying_all_terminates,
        a_replay_keeps_the_order_of_each_key,
        letters_are_paged_and_filtered,
        an_interrupted_replay_keeps_the_letter,
        closed_letters_at_the_start_of_the_topic_are_removed,
        processes_see_changes_made_by_others,
        foreign_records_are_listed_and_can_be_discarded;
    metric_values:
        the_work_of_a_consumer_is_counted;
    observing:
        an_observer_is_notified_of_every_event,
        an_observer_is_notified_of_offsets_committed_with_outputs,
        consumers_with_different_topics_run_side_by_side;
    producing:
        callbacks_are_called_exactly_once_in_order,
        a_dropped_producer_answers_every_record,
        flush_waits_for_every_answer,
        an_oversized_record_is_rejected;
    transforming:
        outputs_exist_exactly_once_although_consumers_are_killed,
        a_failed_attempt_writes_nothing,
        the_good_records_of_a_rejected_batch_are_written_once,
        a_record_with_a_rejected_output_is_dead_lettered;
}
