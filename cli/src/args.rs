//! The command line.

mod dead_letters;
mod group;
mod load;
mod people;

pub use dead_letters::{DeadLettersCommand, LetterFilter, OperatorArgs};
pub use group::GroupCommand;
pub use load::{LoadCommand, LoadOptions};
pub use people::{ProfileCommand, Seen, SettingsArgs};

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Talk to a Godwit server from the terminal.
#[derive(Clone, Debug, Parser)]
#[command(name = "godwit-cli", version, propagate_version = true)]
pub struct Args {
    /// Address of the server. `load` accepts several, repeated or separated by commas. It spreads its connections over them;
    /// a reconnect goes to the next one.
    #[arg(
        long,
        global = true,
        env = "GODWIT_URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7450"
    )]
    pub url: Vec<String>,
    /// PEM file of the certificate authorities to trust for https:// servers. Default: the authorities of the system.
    #[arg(long, global = true, env = "GODWIT_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Print one JSON object per line.
    #[arg(long, global = true)]
    pub json: bool,
    /// The user to act as. Default: the last user who logged in here.
    #[arg(
        // Not `user`, which several commands have: a value of theirs would replace that of the option.
        id = "acting_user",
        long = "user",
        short = 'u',
        global = true,
        visible_alias = "profile",
        env = "GODWIT_USER",
        value_name = "USER"
    )]
    pub user: Option<String>,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// A command.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Create an account and log in.
    Register {
        /// User id: letters, digits, '.', '_', '-'.
        #[arg(value_name = "USER")]
        user: String,
        /// Password. Default: ask for it.
        #[arg(long, env = "GODWIT_PASSWORD", hide_env_values = true)]
        password: Option<String>,
    },
    /// Log in to an account.
    Login {
        /// User id.
        #[arg(value_name = "USER")]
        user: String,
        /// Password. Default: ask for it.
        #[arg(long, env = "GODWIT_PASSWORD", hide_env_values = true)]
        password: Option<String>,
    },
    /// Log out and remove the saved credentials.
    Logout,
    /// Chat in a conversation. Reads lines from the terminal, or from a pipe until its end. A line that begins with a slash is a
    /// command; `/help` lists them.
    Chat {
        /// User id, or conversation id (`g:...`, `d:...`).
        with: String,
        /// Number of past messages to show first.
        #[arg(long, default_value_t = 20, value_name = "N")]
        history: u32,
    },
    /// Send one message.
    Send {
        /// User id, or conversation id (`g:...`, `d:...`).
        with: String,
        /// The text, or `-` to read it from stdin.
        text: String,
        /// Answer this message: its number or its message id.
        #[arg(long, value_name = "MESSAGE")]
        reply_to: Option<String>,
        /// Send an entry of a kind of your own, with a dot, such as `acme.order`, instead of a message.
        #[arg(long, value_name = "KIND", conflicts_with = "reply_to")]
        kind: Option<String>,
        /// An entry of this kind counts as unread.
        #[arg(long, requires = "kind")]
        countable: bool,
    },
    /// Replace one of your messages.
    Edit {
        /// User id, or conversation id (`g:...`, `d:...`).
        with: String,
        /// Its number or its message id.
        message: String,
        /// The new text, or `-` to read it from stdin.
        text: String,
    },
    /// Take a message back.
    Recall {
        /// User id, or conversation id (`g:...`, `d:...`).
        with: String,
        /// Its number or its message id.
        message: String,
    },
    /// Replace your reactions to a message.
    React {
        /// User id, or conversation id (`g:...`, `d:...`).
        with: String,
        /// Its number or its message id.
        message: String,
        /// The reactions, such as emojis. Default: none.
        reactions: Vec<String>,
    },
    /// Print messages as they arrive.
    Listen {
        /// Print only this conversation.
        with: Option<String>,
        /// Exit after this many messages.
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        /// Continue where the last `listen --resume` ended, including messages that arrived in between.
        #[arg(long)]
        resume: bool,
    },
    /// Print the messages of a conversation, oldest first.
    History {
        /// User id, or conversation id (`g:...`, `d:...`).
        with: String,
        /// Number of messages, counted from the end.
        #[arg(long, short = 'n', default_value_t = 50, value_name = "N")]
        limit: u32,
    },
    /// List conversations and their numbers of unread messages, most recent first.
    Conversations,
    /// List what has changed for the user since a receiver seq: conversations, profile, blocks.
    Changes {
        /// The receiver seq that the last `changes` printed, `EPOCH:SEQ`. Default: list everything.
        #[arg(long, value_name = "EPOCH:SEQ")]
        since: Option<String>,
    },
    /// Show your own settings of a conversation, or change them.
    Settings {
        /// User id, or conversation id (`g:...`, `d:...`).
        with: String,
        /// The changes.
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Mark a conversation as read.
    Read {
        /// User id, or conversation id (`g:...`, `d:...`).
        with: String,
        /// Read up to the message with this number. Default: the last one.
        message: Option<u64>,
    },
    /// Tell connected devices something without storing it.
    Signal {
        /// User id, or conversation id (`g:...`, `d:...`).
        with: String,
        /// `typing`, `stopped`, or a kind of your own with a dot, such as `acme.call`.
        kind: String,
        /// The text of a kind of your own.
        text: Option<String>,
        /// Only to this member, for a kind of your own. May be repeated.
        #[arg(long, value_name = "USER")]
        to: Vec<String>,
    },
    /// Show who is online, or set the text that others see while you are online.
    Presence {
        /// User ids.
        #[arg(required_unless_present = "text")]
        users: Vec<String>,
        /// Your text; empty removes it.
        #[arg(long, value_name = "TEXT")]
        text: Option<String>,
    },
    /// Show who has read a message.
    Readers {
        /// User id, or conversation id (`g:...`, `d:...`).
        with: String,
        /// Its number.
        message: u64,
    },
    /// Block a user: no direct messages, no signals, and no invitations to groups from them.
    Block {
        /// User id.
        #[arg(value_name = "USER")]
        user: String,
    },
    /// Unblock a user.
    Unblock {
        /// User id.
        #[arg(value_name = "USER")]
        user: String,
    },
    /// List the users whom you have blocked.
    Blocks,
    /// Show profiles, or change your own.
    Profile {
        /// The action.
        #[command(subcommand)]
        command: ProfileCommand,
    },
    /// Create and change groups.
    Group {
        /// The action.
        #[command(subcommand)]
        command: GroupCommand,
    },
    /// Manage dead letters (for operators): acknowledged messages that could not be stored, and invalid records.
    ///
    /// The command calls the admin port of the program that processes messages: `consumer` or `godwit`.
    DeadLetters {
        /// The admin server and its credentials.
        #[command(flatten)]
        operator: OperatorArgs,
        /// The action.
        #[command(subcommand)]
        command: DeadLettersCommand,
    },
    /// Put load on a server, and check that no message is lost, duplicated or reordered.
    ///
    /// A send is retried after a retryable error or a lost connection until it is acknowledged. The report shows how many sends
    /// were never acknowledged, and the longest pause: the longest time that any sender had sends due without receiving an
    /// acknowledgement. `max` of "send to ack" is the longest time from the moment a message was due to its acknowledgement.
    /// The exit code is 1 if a message was lost, duplicated or reordered.
    Load {
        /// The kind of load.
        #[command(subcommand)]
        command: LoadCommand,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once("godwit-cli").chain(line.split_whitespace()))
    }

    #[test]
    fn the_command_line_definition_is_valid() {
        Args::command().debug_assert();
    }

    #[test]
    fn p8_no_argument_of_a_command_replaces_a_global_option() {
        fn check(command: &clap::Command, globals: &[String]) {
            for argument in command.get_arguments() {
                let id = argument.get_id().to_string();
                let is_taken = !argument.is_global_set() && globals.contains(&id);
                assert!(!is_taken, "{}: {id} is also a global option", command.get_name());
            }
            command.get_subcommands().for_each(|command| check(command, globals));
        }
        let command = Args::command();
        let globals = command.get_arguments().filter(|argument| argument.is_global_set());
        check(&command, &globals.map(|argument| argument.get_id().to_string()).collect::<Vec<_>>());
        for line in ["--user alice block bob", "group owner g:1 bob -u alice"] {
            assert_eq!(parse(line).unwrap().user.as_deref(), Some("alice"), "{line}");
        }
    }

    #[test]
    fn global_flags_are_accepted_anywhere() {
        let args = parse("--user alice chat bob --json --url http://host:1").unwrap();
        assert_eq!(
            (args.user.as_deref(), args.json, args.url.as_slice()),
            (Some("alice"), true, ["http://host:1".to_owned()].as_slice())
        );
        let args = parse("send bob - --profile carol").unwrap();
        assert_eq!(args.user.as_deref(), Some("carol"));
        assert!(matches!(args.command, Command::Send { text, .. } if text == "-"));
    }

    #[test]
    fn wrong_usage_exits_with_code_2() {
        for line in [
            "",
            "chat",
            "send bob",
            "load flood --connections 1",
            "group add g:x",
            "group rename g:x",
            "edit bob 12",
            "readers bob twelve",
            "settings bob --pinned perhaps",
            "profile set --presence some",
            "load pair --body 1",
            "dead-letters replay",
            "dead-letters replay 0-1 --all",
            "dead-letters replay --all --reason x",
            "dead-letters drop",
            "fly",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn load_accepts_several_servers_and_processes() {
        let args = parse(
            "load pair --pairs 2 --rate 10 --seconds 1 --server-pid 7 --server-pid 8 --url a:1 --url b:1,c:1",
        );
        let args = args.unwrap();
        assert_eq!(args.url, ["a:1", "b:1", "c:1"]);
        let Command::Load { command: LoadCommand::Pair { pairs: 2, rate: 10, options } } = args.command
        else {
            panic!("another command")
        };
        assert_eq!(options.server_pid, [7, 8]);
        assert_eq!(options.body, 64);
    }
}
