//! The command line.

use clap::{Args as ClapArgs, Parser, Subcommand};
use std::path::PathBuf;

/// Talk to a Godwit server from the terminal.
#[derive(Clone, Debug, Parser)]
#[command(name = "godwit-cli", version, propagate_version = true)]
pub struct Args {
    /// Address of the server. `load` takes several, repeated or with commas between them: its connections are spread over them, and a
    /// reconnect goes to the next.
    #[arg(
        long,
        global = true,
        env = "GODWIT_URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7450"
    )]
    pub url: Vec<String>,
    /// File of the authorities (PEM) that the certificate of an https:// server is checked against, in place of the system's.
    #[arg(long, global = true, env = "GODWIT_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Write one JSON object per line.
    #[arg(long, global = true)]
    pub json: bool,
    /// Which of the users who are logged in here; otherwise the last one who logged in.
    #[arg(long, short, global = true, visible_alias = "profile", env = "GODWIT_USER", value_name = "USER")]
    pub user: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Make an account, and log in.
    Register {
        /// User id: letters, digits, '.', '_', '-'.
        #[arg(value_name = "USER")]
        user: String,
        /// Password; asked for if left out.
        #[arg(long, env = "GODWIT_PASSWORD", hide_env_values = true)]
        password: Option<String>,
    },
    /// Log in to an account.
    Login {
        /// User id.
        #[arg(value_name = "USER")]
        user: String,
        /// Password; asked for if left out.
        #[arg(long, env = "GODWIT_PASSWORD", hide_env_values = true)]
        password: Option<String>,
    },
    /// Log out, and forget the user here.
    Logout,
    /// Talk with somebody. Reads lines from the terminal, or from a pipe until its end.
    Chat {
        /// User id, or conversation id (`g:...`, `d:...`).
        with: String,
        /// How many messages of the past to show first.
        #[arg(long, default_value_t = 20, value_name = "N")]
        history: u32,
    },
    /// Send one message.
    Send {
        /// User id, or conversation id (`g:...`, `d:...`).
        with: String,
        /// The text; `-` reads it from stdin.
        text: String,
    },
    /// Print messages as they arrive.
    Listen {
        /// Only this conversation.
        with: Option<String>,
        /// End after so many.
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        /// Go on where the last `listen --resume` ended, with what came in between.
        #[arg(long)]
        resume: bool,
    },
    /// Print the messages of a conversation, oldest first.
    History {
        /// User id, or conversation id (`g:...`, `d:...`).
        with: String,
        /// How many, counted from the end.
        #[arg(long, short = 'n', default_value_t = 50, value_name = "N")]
        limit: u32,
    },
    /// List conversations, with how many messages are unread.
    Conversations,
    /// Make and change groups.
    Group {
        /// What to do with a group.
        #[command(subcommand)]
        command: GroupCommand,
    },
    /// Dead letters, for operators: messages that were acknowledged and could not be stored, and what is no message at all.
    ///
    /// The program that handles messages answers, on its admin port: `consumer`, or `godwit`.
    DeadLetters {
        /// Where to ask, and with which right.
        #[command(flatten)]
        operator: OperatorArgs,
        /// What to do with dead letters.
        #[command(subcommand)]
        command: DeadLettersCommand,
    },
    /// Put load on a server, and check that nothing is lost, doubled or reordered.
    ///
    /// A send that is refused with "try again", or whose connection ends, is tried again until it is acknowledged. The report says
    /// how many failed all the same, the longest pause that any sender saw (the longest time without an
    /// acknowledgement while sends were due), and, as `max` of "send to ack", the longest that one message took from when it was
    /// due. The exit code is 1 when something was lost, doubled or reordered.
    Load {
        /// Which load.
        #[command(subcommand)]
        command: LoadCommand,
    },
}

/// Where an operator asks, and with which right.
#[derive(Clone, Debug, ClapArgs)]
pub struct OperatorArgs {
    /// Admin address of a `consumer` (7469 by default), or of `godwit`.
    #[arg(
        long,
        global = true,
        env = "GODWIT_ADMIN_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:7459"
    )]
    pub admin: String,
    /// The operator's token, or `file:PATH`; otherwise that of the folder of data.
    #[arg(long, global = true, env = "GODWIT_OPERATOR_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Folder of data of `godwit`, which keeps its token there.
    #[arg(long, global = true, value_name = "FOLDER", default_value = "godwit-data")]
    pub data: PathBuf,
}

/// What to do with dead letters.
#[derive(Clone, Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// List them, oldest first, without what people wrote.
    List {
        /// At most so many.
        #[arg(long, short = 'n', default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Only those behind this one.
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        /// Which ones.
        #[command(flatten)]
        which: Which,
    },
    /// Show all that is known of one.
    Show {
        /// Its id, such as 0-17.
        id: String,
        /// Also what it says.
        #[arg(long)]
        body: bool,
    },
    /// Hand them to the handler again, behind what came after them; those that fail again are new dead letters.
    Replay {
        /// Their ids.
        #[arg(required_unless_present_any = ["all", "reason", "conversation"], conflicts_with_all = ["all", "reason", "conversation"])]
        ids: Vec<String>,
        /// All of them.
        #[arg(long, conflicts_with_all = ["reason", "conversation"])]
        all: bool,
        /// Which ones.
        #[command(flatten)]
        which: Which,
    },
    /// Drop them for good.
    Drop {
        /// Their ids.
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

/// Which dead letters.
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct Which {
    /// Those whose reason contains this text.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Those of this conversation, `g:...` or `d:...`.
    #[arg(long, value_name = "ID")]
    pub conversation: Option<String>,
}

/// What to do with a group.
#[derive(Clone, Debug, Subcommand)]
pub enum GroupCommand {
    /// Make a group; you own it.
    Create {
        /// Its name.
        name: String,
        /// Members beside you.
        members: Vec<String>,
        /// Later members see everything, not only what comes after they joined.
        #[arg(long)]
        open_history: bool,
    },
    /// Add members.
    Add {
        /// The group, `g:...`.
        group: String,
        /// User ids.
        #[arg(required = true)]
        users: Vec<String>,
    },
    /// Remove members.
    Remove {
        /// The group, `g:...`.
        group: String,
        /// User ids.
        #[arg(required = true)]
        users: Vec<String>,
    },
    /// Leave a group.
    Leave {
        /// The group, `g:...`.
        group: String,
    },
    /// List your groups, or the members of one.
    List {
        /// The group, `g:...`.
        group: Option<String>,
    },
}

/// Which load.
#[derive(Clone, Debug, Subcommand)]
pub enum LoadCommand {
    /// Pairs of users; messages are sent at fixed times, however slow the server is.
    Pair {
        /// Pairs.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        pairs: u32,
        /// Messages per second over all pairs.
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
        rate: u32,
        /// What all loads have.
        #[command(flatten)]
        options: LoadOptions,
    },
    /// As many messages as the server takes: half of the connections send, the other half receives.
    Flood {
        /// Connections.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..))]
        connections: u32,
        /// Messages that each sender keeps unacknowledged.
        #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
        in_flight: u32,
        /// What all loads have.
        #[command(flatten)]
        options: LoadOptions,
    },
    /// Connections that do nothing: how fast they open and what they cost.
    Idle {
        /// Connections.
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
        connections: u32,
        /// What all loads have.
        #[command(flatten)]
        options: LoadOptions,
    },
    /// One group, one sender, and everybody else receives.
    Fanout {
        /// Members of the group, with the sender.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..))]
        members: u32,
        /// Messages per second.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        rate: u32,
        /// What all loads have.
        #[command(flatten)]
        options: LoadOptions,
    },
}

/// What all loads have.
#[derive(Clone, Debug, ClapArgs)]
pub struct LoadOptions {
    /// How long to send, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// Size of a body in bytes.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(32..=1_048_576))]
    pub body: u32,
    /// Processes of the server, with their children: their CPU time and memory are measured. May be repeated.
    #[arg(long, value_name = "PID")]
    pub server_pid: Vec<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once("godwit-cli").chain(line.split_whitespace()))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn global_flags_may_stand_anywhere() {
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
    fn wrong_usage_ends_with_code_2() {
        for line in [
            "",
            "chat",
            "send bob",
            "load flood --connections 1",
            "group add g:x",
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
    fn a_load_takes_several_servers_and_processes() {
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
