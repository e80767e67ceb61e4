//! The arguments of `load`.

use clap::{Args as ClapArgs, Subcommand};

/// A kind of load.
#[derive(Clone, Debug, Subcommand)]
pub enum LoadCommand {
    /// Send messages within pairs of users at a fixed rate, even if the server is slow.
    Pair {
        /// Number of pairs.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        pairs: u32,
        /// Messages per second of all pairs together.
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
        rate: u32,
        /// Common options.
        #[command(flatten)]
        options: LoadOptions,
    },
    /// Send as many messages as the server accepts. Half of the connections send, the other half receive.
    Flood {
        /// Number of connections.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..))]
        connections: u32,
        /// Unacknowledged messages per sender.
        #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
        in_flight: u32,
        /// Common options.
        #[command(flatten)]
        options: LoadOptions,
    },
    /// Open idle connections; measure how fast they open and how much memory they use.
    Idle {
        /// Number of connections.
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
        connections: u32,
        /// Let each connection first fetch a page of history of 1 MiB. All users are members of one group, whose size the
        /// server limits.
        #[arg(long)]
        page: bool,
        /// Common options.
        #[command(flatten)]
        options: LoadOptions,
    },
    /// Send messages to one group with one sender; all other members receive.
    Fanout {
        /// Members of the group, including the sender.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..))]
        members: u32,
        /// Messages per second.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        rate: u32,
        /// Common options.
        #[command(flatten)]
        options: LoadOptions,
    },
    /// Fetch all conversations of one user, then those that changed; count the frames and bytes.
    Sync {
        /// Number of conversations of the user.
        #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
        conversations: u32,
        /// Conversations that change while the device is away.
        #[arg(long, default_value_t = 3)]
        changed: u32,
    },
    /// Let all members of a group read each message of one sender; count the frames.
    Read {
        /// Members of the group, including the sender.
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(2..))]
        members: u32,
        /// Number of messages.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        messages: u32,
        /// Measure the CPU time of this server process and its children. May be repeated.
        #[arg(long, value_name = "PID")]
        server_pid: Vec<u32>,
    },
}

/// Common options.
#[derive(Clone, Debug, ClapArgs)]
pub struct LoadOptions {
    /// Duration of the run, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// Size of a message body in bytes.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(32..=1_048_576))]
    pub body: u32,
    /// Measure the CPU time and memory of this server process and its children. May be repeated.
    #[arg(long, value_name = "PID")]
    pub server_pid: Vec<u32>,
}
