//! The arguments of `group`.

use clap::Subcommand;

/// An action on groups.
#[derive(Clone, Debug, Subcommand)]
pub enum GroupCommand {
    /// Create a group that you own.
    Create {
        /// Name of the group.
        name: String,
        /// User ids of the other members.
        members: Vec<String>,
        /// Members who join later see the whole history. Default: only messages after they joined.
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
    /// Rename a group that you own.
    Rename {
        /// The group, `g:...`.
        group: String,
        /// The new name.
        name: String,
    },
    /// Make another member the owner of a group that you own.
    Owner {
        /// The group, `g:...`.
        group: String,
        /// User id.
        user: String,
    },
    /// Dissolve a group that you own. Its members keep what they could read.
    Dissolve {
        /// The group, `g:...`.
        group: String,
    },
    /// List your groups, or the members of a group.
    List {
        /// The group, `g:...`.
        group: Option<String>,
    },
}
