//! The conformance suite of both stores: SQLite, PostgreSQL, and PostgreSQL as several databases. Each test runs through the gRPC
//! service with a fresh [`World`].
//!
//! Unlike the suites of other crates, this one is part of the crate: it sets the clock of the service and uses the stores
//! directly, and neither is public.

mod accounts;
mod builders;
mod changes;
mod groups;
mod model;
mod positions;
mod reading;
mod redelivery;
mod saving;
mod sharded;
mod user_state;
mod world;

use world::World;

/// Defines every test once for each store, and once for several databases.
macro_rules! conformance {
    ($($suite:ident: $($test:ident),+;)+) => {
        mod on_sqlite {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let world = super::World::sqlite();
                    super::$suite::$test(&world).await;
                }
            )+)+
        }

        mod on_postgres {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let world = super::World::postgres().await;
                    super::$suite::$test(&world).await;
                    world.clean_up().await;
                }
            )+)+
        }

        mod on_shards {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let world = super::World::sharded().await;
                    super::$suite::$test(&world).await;
                    world.clean_up().await;
                }
            )+)+
        }
    };
}

conformance! {
    saving:
        p4_concurrent_saves_and_duplicates_leave_no_gaps,
        p2_a_duplicate_returns_the_seqs_of_the_stored_entry,
        p3_a_batch_is_stored_in_order_in_each_conversation,
        p1_a_direct_message_is_stored_with_both_members,
        p8_a_message_of_an_outsider_or_to_no_group_is_rejected_and_not_stored,
        p1_an_entry_of_a_later_version_is_stored_byte_for_byte,
        a_reply_is_stored_with_the_seq_of_its_target,
        a_first_entry_that_changes_nothing_creates_a_direct_conversation,
        entries_that_the_log_decoder_refuses_are_refused,
        p2_a_batch_saved_by_two_instances_at_once_is_stored_once,
        p4_batches_in_opposite_order_do_not_deadlock,
        p4_a_reader_never_sees_an_entry_without_all_earlier_ones,
        a_large_batch_is_stored;
    redelivery:
        p4_a_rejected_entry_is_rejected_again_when_the_log_redelivers_it,
        a_retry_of_a_rejected_entry_is_decided_anew,
        a_retry_of_a_stored_entry_is_not_a_redelivery,
        p1_each_save_raises_the_position_of_its_partition,
        p1_a_store_that_lost_entries_gets_them_again_with_the_same_numbers,
        p1_entries_of_a_replaced_log_are_stored,
        invalid_parts_of_the_log_are_refused;
    groups:
        a_new_group_has_its_owner_and_members,
        p8_only_owners_change_members,
        a_forbidden_change_stores_nothing,
        p8_a_later_member_sees_only_entries_since_joining,
        a_later_member_of_a_group_with_open_history_sees_all_entries,
        a_member_who_comes_back_does_not_see_the_absence,
        a_member_who_comes_back_to_an_open_group_has_not_read_the_absence,
        an_owner_renames_hands_over_and_dissolves_a_group,
        p6_a_group_change_of_a_later_version_is_stored_without_effect,
        when_the_last_owner_leaves_the_oldest_member_becomes_owner,
        a_group_has_a_size_limit,
        p2_a_check_returns_the_seqs_of_a_stored_change,
        p2_a_check_concurrent_with_the_change_is_not_refused,
        p2_a_message_stored_before_its_sender_left_is_a_duplicate,
        p2_a_repeated_change_is_applied_once,
        a_check_predicts_the_result_of_a_save,
        a_group_created_twice_at_once_is_one_group;
    changes:
        only_the_author_edits,
        an_author_or_an_owner_recalls,
        a_recalled_entry_is_not_unread,
        reactions_are_one_set_per_user_and_entry,
        p2_a_redelivered_change_is_a_duplicate_with_the_current_state,
        changes_of_changes_and_of_unknown_entries_are_refused,
        the_windows_apply_to_checks_only,
        changes_have_limits;
    model:
        histories_are_those_of_the_plain_model;
    reading:
        p5_pages_in_both_directions_have_no_gaps_or_overlaps,
        p8_strangers_see_no_entries_and_not_which_conversations_exist,
        the_history_of_an_empty_direct_conversation_is_an_empty_page,
        p7_a_page_is_bounded_in_bytes,
        history_and_heads_have_the_current_state_of_entries,
        p1_unknown_fields_and_kinds_are_returned_byte_for_byte,
        p8_a_former_member_reads_up_to_the_entry_of_the_removal,
        p8_entries_of_an_absence_stay_hidden,
        the_members_of_a_direct_conversation_follow_from_its_id,
        invalid_pages_are_refused;
    positions:
        heads_are_listed_by_their_last_entry_and_paginated,
        p7_a_page_of_heads_is_bounded_in_bytes,
        p5_own_and_recalled_messages_do_not_count_as_unread,
        a_read_position_never_moves_back_or_past_the_last_entry,
        a_batch_marks_many_conversations_of_many_users,
        receipts_go_to_the_authors_in_groups_up_to_a_size,
        readers_are_the_members_who_can_see_the_entry,
        p4_unread_counts_are_exact_under_concurrent_changes;
    user_state:
        p5_settings_change_one_by_one_and_are_part_of_heads,
        p8_settings_need_a_conversation_of_the_user,
        p8_blocks_are_listed_and_found,
        p7_a_user_can_block_a_limited_number_of_users,
        profiles_are_replaced_as_a_whole;
    accounts:
        a_user_id_can_be_registered_once,
        apps_are_isolated,
        a_device_has_one_session,
        p8_sessions_belong_to_their_user,
        p8_a_very_old_refresh_token_ends_the_session,
        concurrent_exchanges_of_a_token_count_once,
        p8_an_invented_token_does_not_end_the_session,
        the_previous_token_is_accepted_until_its_successor_is_used,
        all_instances_share_one_signing_key,
        invalid_accounts_and_sessions_are_refused;
}
