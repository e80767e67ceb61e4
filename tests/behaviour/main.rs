//! The promise, tested on whole systems: every body runs against the one-process program and against the services.
//!
//! `cargo test -p tests --test behaviour [NAME]`; the distributed half needs real servers, see `tests/run`.

use anyhow::{Context as _, Result, anyhow};
use libtest_mimic::{Arguments, Failed, Trial};
use std::{future::Future, pin::Pin, process::ExitCode, sync::Arc, time::Duration};
use tests::{
    process::Process,
    system::{Distributed, Embedded, System, TIGHT},
    world::World,
};
use tokio::{runtime::Runtime, sync::OnceCell, time::timeout};

mod connections;
mod dashboards;
mod devices;
mod discovery;
mod distributed;
mod documents;
mod drain;
mod embedded;
mod groups;
mod http;
mod letters;
mod limits;
mod load;
mod messages;
mod metrics;
mod moves;
mod sync;
mod tls;
mod traces;

/// A test that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(300);
/// Tests wait most of their time, so more of them run at once than there are cores.
const THREADS: usize = 6;

type Body = Pin<Box<dyn Future<Output = Result<()>>>>;

/// A test that runs against both modes.
struct Case {
    name: &'static str,
    limits: Limits,
    body: fn(World) -> Body,
}

/// Which of a mode's two systems a test runs on.
#[derive(Clone, Copy, PartialEq)]
enum Limits {
    /// The one with the limits that users have.
    Usual,
    /// The one whose limits can be reached in a second.
    Tight,
}

macro_rules! cases {
    ($($limits:ident $module:ident: $($name:ident)*;)*) => {
        vec![$($(Case {
            name: concat!(stringify!($module), "::", stringify!($name)),
            limits: Limits::$limits,
            body: |world| Box::pin($module::$name(world)),
        }),*),*]
    };
}

fn cases() -> Vec<Case> {
    cases! {
        Usual messages:
            p1_two_users_talk_live
            p1_who_was_away_catches_up_exactly
            p1_an_ack_names_the_message_and_its_time
            p2_a_retry_is_the_same_message_and_the_first_content_wins
            p2_a_retry_over_a_new_connection_is_the_same_message
            p3_pipelined_messages_keep_their_order
            p4_everybody_sees_the_same_numbers_without_gaps
            p5_json_and_proto_devices_see_the_same
            p7_the_largest_body_passes_and_one_byte_more_does_not
            p8_a_malformed_message_is_refused_and_says_why
            p8_the_sender_is_who_the_token_says;
        Usual devices:
            p2_every_device_gets_a_message_once_the_senders_others_too
            p5_a_new_connection_of_a_device_replaces_the_old_one
            p5_the_end_of_an_old_connection_leaves_the_new_one_alone
            p8_logging_out_closes_the_device_and_its_token
            p8_logging_in_again_ends_the_sessions_before_of_that_device;
        Usual sync:
            p4_a_delivery_says_what_the_receivers_seq_rose_by
            p5_an_equal_receivers_seq_means_everything_is_there
            p5_heads_say_what_is_unread
            p5_a_read_position_never_goes_back_nor_beyond_the_end
            p5_who_wrote_is_told_that_it_was_read
            p5_history_pages_both_ways
            p5_heads_come_in_pages
            p7_pages_have_a_bound
            p8_a_conversation_of_others_is_closed
            p8_who_does_not_exist_cannot_be_written_to;
        Usual groups:
            p1_a_group_talks
            p2_a_repeated_creation_is_the_same_group
            p3_changes_of_a_group_are_entries_of_its_conversation
            p4_who_joins_sees_from_the_entry_of_joining_or_everything
            p3_a_change_overtakes_no_message
            p8_nobody_is_told_of_groups_that_they_were_never_in
            p5_who_is_removed_is_told_so
            p2_a_request_id_is_no_client_msg_id
            p8_only_an_owner_changes_members
            p8_who_was_removed_neither_sends_nor_reads
            p8_who_left_neither_sends_nor_reads_and_ownership_goes_on
            p8_strangers_see_nothing_of_a_group
            p8_a_group_of_unknown_users_is_refused;
        Usual connections:
            p8_without_a_good_token_there_is_no_welcome
            p8_nothing_is_served_before_hello
            p8_a_second_hello_is_refused
            p8_a_token_for_another_device_is_refused
            p7_an_unknown_or_broken_frame_is_answered_and_the_connection_lives
            p7_a_frame_of_the_other_format_is_answered
            p7_a_frame_that_is_too_large_closes_the_connection
            p7_text_that_is_not_utf8_closes_the_connection
            p7_an_unknown_subprotocol_is_refused
            p7_a_device_that_does_not_read_is_cut_off_and_catches_up;
        Usual http:
            p8_a_name_can_be_taken_once
            p8_a_wrong_password_and_an_unknown_user_look_the_same
            p8_a_refresh_token_works_once_and_a_lost_answer_can_be_repeated
            p8_a_token_opens_nothing_else
            p7_bad_requests_get_problem_documents
            p7_a_body_that_is_too_large_is_refused;
        Tight limits:
            p7_who_sends_too_fast_is_told_how_long_to_wait
            p7_who_asks_too_much_is_told_how_long_to_wait
            p7_a_user_has_so_many_connections
            p7_a_silent_connection_is_closed
            p7_hello_comes_in_time_or_the_connection_is_closed
            p8_an_expired_token_is_told_apart_and_a_refresh_helps;
        Usual documents:
            the_session_of_the_protocol_page_is_what_happens
            the_python_example_talks_and_catches_up;
    }
}

/// A test that starts what it needs by itself.
struct Own {
    name: &'static str,
    body: fn() -> Body,
}

macro_rules! own {
    ($($module:ident: $($name:ident)*;)*) => {
        vec![$($(Own {
            name: concat!(stringify!($module), "::", stringify!($name)),
            body: || Box::pin($module::$name()),
        }),*),*]
    };
}

fn own() -> Vec<Own> {
    own! {
        dashboards:
            every_alert_has_a_runbook_and_every_runbook_an_alert
            dashboards_show_every_program_from_one_source
            every_metric_of_a_dashboard_or_an_alert_is_exported;
        documents:
            the_table_of_closes_is_the_table_of_errors
            the_python_example_comes_back_after_a_restart
            no_program_has_a_deliberate_defect;
        metrics:
            the_table_of_metrics_is_what_the_sources_say
            embedded_the_table_of_metrics_is_what_is_exported
            distributed_the_table_of_metrics_is_what_is_exported;
        traces:
            embedded_a_message_is_one_trace_from_send_to_socket
            distributed_a_message_is_one_trace_from_send_to_socket
            a_collector_that_is_away_disturbs_nobody;
        letters:
            embedded_p6_dead_letters_are_listed_shown_replayed_and_dropped
            embedded_p8_dead_letters_are_for_operators
            distributed_p6_dead_letters_are_listed_shown_replayed_and_dropped
            distributed_p8_dead_letters_are_for_operators;
        tls:
            p8_services_and_servers_talk_over_tls_and_a_stranger_is_refused
            p8_a_gateway_is_known_by_its_certificate
            p9_a_gateways_certificate_is_renewed_without_a_restart
            every_fault_of_certificates_is_told_at_once;
        embedded:
            p9_keys_are_changed_and_nobody_is_logged_out
            p1_sigkill_under_load_loses_nothing
            p1_a_full_disk_refuses_and_loses_nothing
            p1_a_second_process_on_the_same_data_is_refused
            p1_what_the_services_call_their_topic_does_not_concern_one_process
            p9_a_stop_under_load_is_orderly_and_loses_nothing
            p9_the_load_generator_says_how_long_the_longest_pause_was
            a_bad_configuration_is_told_with_every_fault;
        moves:
            p1_a_move_to_the_services_and_back_takes_everything_and_every_device_along
            p1_a_backup_in_use_is_restored_and_devices_go_back_to_it
            p1_what_kafka_still_has_comes_back_into_a_restored_database;
        distributed:
            p1_sigkill_of_each_service_under_load_loses_nothing
            p4_a_lost_redis_begins_a_new_epoch_and_loses_nothing
            p8_a_removal_is_answered_once_it_is_in_force
            p6_an_outage_of_any_server_loses_nothing
            p6_a_record_that_is_none_goes_to_the_dead_letters_and_stops_nothing
            p6_a_service_without_its_server_says_which_one_is_missing
            p9_each_service_is_replaced_under_load_unseen
            a_bad_configuration_is_told_with_every_fault;
        discovery:
            p9_every_caller_sees_within_a_second_who_comes_and_goes
            p9_consul_away_and_back_with_nothing_changes_nothing
            p8_a_guarded_consul_takes_who_has_a_token;
        drain:
            p9_the_devices_of_a_gateway_leave_without_a_storm_and_nothing_is_lost;
    }
}

/// A program with a faulty configuration names each fault and exits with 64.
async fn bad_configuration(program: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("godwit.toml");
    std::fs::write(&file, "colour = 'red'\n[gateway]\nheartbeat = 'often'\n[limits]\nsend_burst = 0\n")?;
    let file = file.to_string_lossy();
    let arguments = ["--config", &*file, "--set", "kafka.partitions=many", "--set", "nonsense.key=1"];
    let mut process = Process::start(program, arguments)?;
    let status = process.ended().await?;
    let said = process.output().join("\n");
    assert_eq!(status.code(), Some(64), "{program}: {said}");
    for fault in ["colour", "gateway.heartbeat", "kafka.partitions", "nonsense"] {
        assert!(said.contains(fault), "{program} does not name {fault}: {said}");
    }
    Ok(())
}

/// The systems of one mode, each started when a test first needs it.
struct Systems<S> {
    usual: OnceCell<Result<Arc<S>, String>>,
    tight: OnceCell<Result<Arc<S>, String>>,
}

impl<S: System + 'static> Systems<S> {
    fn new() -> Arc<Self> {
        Arc::new(Self { usual: OnceCell::new(), tight: OnceCell::new() })
    }

    async fn world(
        &self,
        limits: Limits,
        start: impl AsyncFnOnce(&'static [&'static str]) -> Result<S>,
    ) -> Result<World> {
        let (cell, settings): (_, &'static [_]) = match limits {
            Limits::Usual => (&self.usual, &[]),
            Limits::Tight => (&self.tight, &TIGHT),
        };
        let started = cell
            .get_or_init(async || start(settings).await.map(Arc::new).map_err(|error| format!("{error:#}")));
        let system = started.await.as_ref().map_err(|error| anyhow!("the system did not start: {error}"))?;
        Ok(World::new(Arc::clone(system) as Arc<dyn System>))
    }
}

/// A test as the harness takes it, with a limit to its time.
fn trial<F: Future<Output = Result<()>>>(
    runtime: &Arc<Runtime>,
    name: String,
    body: impl FnOnce() -> F + Send + 'static,
) -> Trial {
    let runtime = Arc::clone(runtime);
    Trial::test(name, move || {
        let ended =
            runtime.block_on(async { timeout(LIMIT, body()).await.context("it did not end in time")? });
        ended.map_err(|error| Failed::from(format!("{error:#}")))
    })
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let runtime = Arc::new(Runtime::new().expect("threads can be started"));
    let (embedded, distributed) = (Systems::<Embedded>::new(), Systems::<Distributed>::new());
    let mut trials = Vec::new();
    for Case { name, limits, body } in cases() {
        let systems = Arc::clone(&embedded);
        trials.push(trial(&runtime, format!("embedded::{name}"), async move || {
            body(systems.world(limits, async |settings| Embedded::start(settings).await).await?).await
        }));
        let systems = Arc::clone(&distributed);
        trials.push(trial(&runtime, format!("distributed::{name}"), async move || {
            body(systems.world(limits, async |settings| Distributed::start(settings).await).await?).await
        }));
    }
    for Own { name, body } in own() {
        trials.push(trial(&runtime, name.to_owned(), body));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // Ends the processes, which nothing would do after the exit.
    drop((embedded, distributed));
    conclusion.exit_code()
}
