//! One suite over both stores, through the gRPC service. A body gets a [`World`] and runs once per store.

mod accounts;
mod groups;
mod reading;
mod saving;
mod world;

use world::World;
pub(crate) use world::postgres_config;

macro_rules! over_both_stores {
    ($($suite:ident: $($body:ident),+ $(,)?;)+) => {
        mod sqlite {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $body() {
                    let world = super::World::sqlite();
                    super::$suite::$body(&world).await;
                }
            )+)+
        }

        mod postgres {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $body() {
                    let world = super::World::postgres().await;
                    super::$suite::$body(&world).await;
                    world.clean_up().await;
                }
            )+)+
        }
    };
}

over_both_stores! {
    saving:
        p4_numbers_have_no_gaps_under_concurrent_saves_and_duplicates,
        p2_what_is_known_is_answered_with_its_number,
        p3_a_batch_keeps_its_order_in_every_conversation,
        p1_a_direct_message_is_in_the_tables_with_both_members,
        a_message_to_no_group_is_rejected_and_stores_nothing,
        what_the_log_would_refuse_is_refused,
        p2_the_same_batch_from_two_instances_at_once_is_stored_once,
        p4_batches_that_cross_do_not_block_each_other,
        p4_a_reader_never_sees_a_number_before_those_below_it,
        a_large_batch_is_stored;
    groups:
        a_group_begins_with_its_owner_and_members,
        p8_only_owners_change_members,
        what_is_not_allowed_stores_nothing,
        p8_a_later_member_sees_from_where_it_joined,
        a_later_member_of_an_open_group_sees_everything,
        an_owner_who_leaves_hands_the_group_on,
        a_group_has_a_size_limit,
        p2_a_check_tells_where_a_change_is_stored,
        p2_a_check_is_not_confused_by_the_change_itself,
        p2_a_change_is_made_once_however_often_it_comes,
        checking_says_what_saving_would,
        a_group_made_twice_at_once_is_one_group;
    reading:
        p5_pages_go_both_ways_and_meet_without_gap_or_overlap,
        p8_strangers_see_nothing_and_do_not_learn_what_exists,
        an_empty_direct_conversation_is_an_empty_page,
        p7_a_page_is_bounded_in_bytes,
        heads_come_in_order_and_in_pages,
        p5_unread_is_a_subtraction,
        a_read_position_never_goes_back_or_beyond_the_end,
        members_of_a_direct_conversation_come_from_its_id,
        bad_pages_are_refused;
    accounts:
        a_user_id_is_taken_once,
        apps_do_not_meet,
        a_device_has_one_session,
        p8_an_old_refresh_token_ends_the_session,
        p8_who_knows_a_session_but_no_token_of_it_can_t_end_it,
        a_lost_answer_to_a_refresh_does_not_log_out,
        all_instances_sign_with_one_key,
        bad_accounts_and_sessions_are_refused;
}
