//! The tables of tests.

use anyhow::Result;
use std::pin::Pin;
use tests::world::World;

type TestFuture = Pin<Box<dyn Future<Output = Result<()>>>>;

/// A test that runs in both modes.
#[derive(Clone)]
pub(crate) struct SharedTest {
    pub(crate) name: &'static str,
    pub(crate) limits: Limits,
    pub(crate) body: fn(World) -> TestFuture,
}

/// The limits of the system that a test runs on. Each mode has one system of each kind.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Limits {
    /// The default limits.
    Default,
    /// Limits that a test can reach within a second.
    Tight,
}

/// A test that starts its own systems.
pub(crate) struct StandaloneTest {
    pub(crate) name: &'static str,
    pub(crate) body: fn() -> TestFuture,
}

macro_rules! shared_tests {
    ($($limits:ident $module:ident: $($name:ident)*;)*) => {
        vec![$($(SharedTest {
            name: concat!(stringify!($module), "::", stringify!($name)),
            limits: Limits::$limits,
            body: |world| Box::pin(crate::$module::$name(world)),
        }),*),*]
    };
}

macro_rules! standalone_tests {
    ($($module:ident: $($name:ident)*;)*) => {
        vec![$($(StandaloneTest {
            name: concat!(stringify!($module), "::", stringify!($name)),
            body: || Box::pin(crate::$module::$name()),
        }),*),*]
    };
}

/// Tests of entries and of the state of users.
fn conversation_tests() -> Vec<SharedTest> {
    shared_tests! {
        Default messages:
            p1_two_users_exchange_messages_live
            p1_an_offline_user_catches_up_completely
            p1_an_ack_carries_the_message_id_and_time
            p2_a_retry_stores_no_second_message_and_the_first_content_wins
            p2_a_retry_over_a_new_connection_stores_no_second_message
            p3_pipelined_messages_keep_their_order
            p4_both_users_see_the_same_seqs_without_gaps
            p5_json_and_proto_devices_see_the_same_entries
            p7_the_largest_body_is_accepted_and_one_more_byte_is_refused
            p8_the_refusal_of_a_malformed_message_names_the_field
            p8_the_sender_is_the_user_of_the_token;
        Default entries:
            p3_an_edit_changes_the_content_and_keeps_earlier_versions
            p8_only_the_author_edits_and_recalls
            p8_a_recalled_message_is_gone_everywhere_and_not_unread
            p8_a_group_owner_recalls_what_a_member_wrote
            p4_reactions_are_a_set_per_user_with_counts
            p2_a_repeated_change_is_the_same_change
            p7_a_change_of_nothing_or_of_a_change_is_refused
            p4_a_reply_names_the_entry_that_it_answers
            p6_kinds_of_the_product_arrive_unchanged_and_count_as_the_sender_says;
        Default user_state:
            p5_reading_on_one_device_reaches_the_others
            p4_what_a_user_wrote_is_never_unread
            p5_an_author_who_was_away_finds_out_who_has_read
            p5_settings_are_the_same_on_all_devices
            p8_a_blocked_user_reaches_the_blocker_in_no_way
            p5_a_profile_is_shown_to_others_and_its_privacy_is_not
            p5_changes_of_many_conversations_cost_one_small_page;
    }
}

/// Tests of devices: signals, catching up, groups.
fn device_tests() -> Vec<SharedTest> {
    shared_tests! {
        Default signals:
            p5_signals_reach_the_other_members_and_are_not_stored
            p8_signals_of_strangers_are_refused
            p5_watchers_see_who_comes_and_goes
            p5_a_user_who_registers_later_can_be_watched
            p8_a_change_of_presence_is_told_to_those_who_may_see_it_now;
        Default devices:
            p2_every_device_gets_each_message_once_including_the_senders_other_devices
            p5_a_new_connection_of_a_device_replaces_the_old_one
            p5_closing_an_old_connection_does_not_affect_the_new_one
            p8_logging_out_closes_the_connection_and_revokes_the_token
            p8_logging_in_again_ends_the_earlier_session_of_the_device;
        Default sync:
            p4_a_delivery_carries_the_increase_of_the_receiver_seq
            p5_an_equal_receiver_seq_means_the_device_is_up_to_date
            p5_heads_give_the_unread_count
            p5_a_read_position_never_moves_back_or_past_the_end
            p5_the_sender_gets_a_read_receipt
            p5_history_pages_forward_and_backward
            p5_heads_are_paginated
            p7_page_sizes_are_limited
            p8_a_conversation_is_closed_to_other_users
            p8_a_message_to_an_unknown_user_is_refused;
        Default groups:
            p1_members_of_a_group_exchange_messages
            p2_a_repeated_creation_returns_the_same_group
            p3_changes_of_a_group_are_entries_of_its_conversation
            p4_a_new_member_sees_entries_since_joining_or_the_whole_history
            p3_a_change_never_overtakes_an_acknowledged_message
            p8_removing_a_non_member_sends_that_user_nothing
            p2_request_ids_and_client_msg_ids_do_not_collide
            p8_only_an_owner_can_change_members
            p8_non_members_see_nothing_of_a_group
            p8_a_group_with_unknown_users_is_refused;
        Default former_members:
            p8_a_removed_member_can_neither_send_nor_read
            p5_a_removed_member_receives_the_removal
            p8_a_member_who_left_can_neither_send_nor_read_and_ownership_passes_on;
    }
}

/// Tests of the public interface: connections, HTTP, limits, the documented examples.
fn interface_tests() -> Vec<SharedTest> {
    shared_tests! {
        Default connections:
            p8_hello_with_an_invalid_token_is_refused
            p8_requests_before_hello_are_refused
            p8_a_second_hello_is_refused
            p8_a_token_for_another_device_is_refused
            p7_an_unknown_or_malformed_frame_gets_an_error_and_the_connection_stays_open
            p7_a_json_frame_may_use_every_form_of_a_value_and_members_of_later_versions
            p7_an_error_names_the_member_and_the_value
            p7_a_frame_in_the_other_wire_format_gets_an_error
            p7_an_oversized_frame_closes_the_connection
            p7_invalid_utf8_closes_the_connection
            p7_an_unknown_subprotocol_is_refused
            p7_a_device_that_does_not_read_is_disconnected_and_catches_up;
        Default api:
            p1_a_program_sends_edits_and_reads_over_http_alone
            p2_an_entry_repeated_over_http_is_the_same_entry
            p5_changes_and_heads_are_read_over_http
            p8_blocks_and_membership_hold_over_http
            profiles_presence_and_signals_work_over_http
            the_rust_sdk_does_everything_over_http
            p7_problems_carry_the_request_id
            p7_errors_name_the_parameter_or_the_member
            methods_and_documentation_of_the_http_api;
        Default http:
            p8_a_user_name_can_be_registered_once
            p8_a_wrong_password_and_an_unknown_user_get_the_same_answer
            p8_a_lost_answer_to_a_refresh_logs_nobody_out
            p8_an_old_refresh_token_is_refused_and_the_session_goes_on
            p8_the_reuse_of_a_very_old_refresh_token_ends_the_session
            p8_names_of_groups_are_normalised_and_visible
            p8_the_case_of_ids_counts
            the_authorization_scheme_has_no_case
            p8_requests_without_an_access_token_are_refused
            p7_invalid_requests_get_problem_documents
            p7_a_compressed_body_is_refused_with_the_reason
            p7_an_oversized_body_is_refused;
        Default authorisation:
            p8_every_caller_gets_the_documented_answer_to_every_operation;
        Default edges:
            p7_a_large_request_head_is_refused
            p9_the_device_port_answers_load_balancers
            a_handshake_of_another_websocket_version_is_told_the_right_one;
        Tight edges:
            p7_silent_connections_of_an_address_are_limited;
        Tight limits:
            p7_sends_above_the_rate_limit_are_refused_with_a_retry_delay
            p7_requests_above_the_rate_limit_are_refused_with_a_retry_delay
            p7_connections_per_user_are_limited
            p7_an_idle_connection_is_closed
            p7_a_connection_without_hello_is_closed_after_a_timeout
            p8_an_expired_token_has_its_own_error_and_can_be_refreshed;
        Default documents:
            the_transcript_of_the_protocol_page_can_be_replayed
            the_python_example_sends_receives_and_catches_up;
    }
}

/// All tests that run in both modes.
pub(crate) fn shared_tests() -> Vec<SharedTest> {
    [conversation_tests(), device_tests(), interface_tests()].concat()
}

/// Tests of the documentation, the dashboards, the telemetry and the dead letters.
fn page_tests() -> Vec<StandaloneTest> {
    standalone_tests! {
        dashboards:
            every_alert_has_a_runbook_and_every_runbook_an_alert
            every_program_has_a_dashboard_and_all_use_one_data_source
            every_metric_of_a_dashboard_or_an_alert_is_exported;
        authorisation:
            every_operation_has_one_row_and_every_row_an_operation;
        documents:
            the_documented_close_codes_match_the_error_codes
            the_python_example_reconnects_after_a_restart
            no_program_contains_a_deliberate_defect;
        metrics:
            the_documented_metrics_match_the_source_code
            embedded_exported_metrics_match_the_documentation
            distributed_exported_metrics_match_the_documentation;
        traces:
            embedded_a_message_is_one_trace_from_send_to_socket
            distributed_a_message_is_one_trace_from_send_to_socket
            an_unreachable_collector_does_not_affect_delivery;
        dead_letters:
            embedded_p6_dead_letters_are_listed_shown_replayed_and_dropped
            embedded_p8_dead_letters_require_the_operator_token
            distributed_p6_dead_letters_are_listed_shown_replayed_and_dropped
            distributed_p8_dead_letters_require_the_operator_token;
    }
}

/// Tests of programs and whole systems.
fn system_tests() -> Vec<StandaloneTest> {
    standalone_tests! {
        tls:
            p8_services_and_servers_use_tls_and_a_foreign_certificate_is_refused
            p8_clients_verify_the_certificate_of_the_gateway
            p9_a_gateways_certificate_is_renewed_without_a_restart
            every_config_error_about_certificates_is_reported_at_once;
        embedded:
            p9_key_rotation_logs_no_user_out
            p1_sigkill_under_load_loses_nothing
            p1_a_full_disk_refuses_messages_and_loses_none
            p1_a_second_process_on_the_same_data_is_refused
            p1_the_one_process_program_ignores_the_configured_topic
            p9_a_graceful_shutdown_under_load_loses_nothing
            p9_the_load_generator_reports_the_longest_pause
            every_config_error_is_reported_at_once;
        programs:
            an_address_works_as_people_write_it
            a_wrong_address_is_refused_with_its_forms
            an_address_in_use_is_named
            a_variable_that_sets_nothing_is_named_with_the_nearest_setting
            every_option_is_documented
            the_printed_commands_work_for_installed_programs_on_any_port
            a_start_does_not_need_a_reader_of_its_output
            damaged_and_newer_data_are_refused_by_file_and_remedy
            p7_without_free_descriptors_the_admin_port_answers_and_the_log_stays_short
            p7_the_limit_of_open_files_is_raised_at_the_start;
        backup:
            p1_a_move_to_the_services_and_back_keeps_all_data_and_sessions
            p1_devices_adopt_a_restored_backup_that_was_made_under_load
            p1_a_restored_database_is_completed_from_kafka;
        distributed:
            p1_sigkill_of_each_service_under_load_loses_nothing
            p1_acks_and_pongs_wait_for_no_request_while_db_service_hangs
            p4_a_redis_data_loss_starts_a_new_epoch_and_loses_no_message
            p8_a_removal_is_acknowledged_only_once_it_is_in_force
            p6_an_outage_of_any_server_loses_nothing
            p6_a_poison_record_is_dead_lettered_and_later_records_continue
            p6_readiness_names_the_missing_server
            p8_no_error_names_an_internal_address_or_service
            p9_each_service_is_replaced_under_load_without_loss
            every_config_error_is_reported_at_once;
        discovery:
            p9_all_callers_soon_see_instances_start_and_stop
            p9_calls_continue_while_consul_is_down_and_after_it_lost_its_data
            p8_a_consul_with_access_control_requires_a_token;
        versions:
            embedded_p6_entries_of_later_versions_pass_byte_for_byte
            distributed_p6_entries_of_later_versions_pass_byte_for_byte
            embedded_data_of_an_older_version_are_refused_and_stay_as_they_are
            distributed_data_of_an_older_version_are_refused_and_stay_as_they_are;
        drain:
            p9_a_draining_gateway_spreads_the_reconnects_and_loses_nothing;
    }
}

/// Tests of a store or a cache that has lost data.
fn lost_data_tests() -> Vec<StandaloneTest> {
    standalone_tests! {
        positions:
            p1_an_older_store_is_completed_from_the_log_with_the_same_numbers
            p1_a_database_without_its_last_transactions_is_completed_from_kafka;
        lost_fences:
            p1_no_message_behind_a_removal_is_acknowledged_after_a_redis_data_loss
            p1_no_message_behind_a_removal_is_acknowledged_after_gateways_and_redis_restart
            p1_no_message_behind_a_removal_is_acknowledged_after_a_sigkill;
    }
}

/// All tests that start their own systems.
pub(crate) fn standalone_tests() -> Vec<StandaloneTest> {
    page_tests().into_iter().chain(system_tests()).chain(lost_data_tests()).collect()
}
