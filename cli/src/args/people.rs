//! The arguments of `settings` and `profile`.

use clap::{ArgAction, Args as ClapArgs, Subcommand, ValueEnum};

/// The user's own settings of a conversation.
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct SettingsArgs {
    /// Mute for this many seconds, `forever`, or `off`.
    #[arg(long, value_name = "SECONDS")]
    pub mute: Option<String>,
    /// Pin to the top of the list.
    #[arg(long, action = ArgAction::Set, value_name = "BOOL")]
    pub pinned: Option<bool>,
    /// Move out of the list.
    #[arg(long, action = ArgAction::Set, value_name = "BOOL")]
    pub archived: Option<bool>,
    /// Mark as unread.
    #[arg(long, action = ArgAction::Set, value_name = "BOOL")]
    pub marked_unread: Option<bool>,
    /// An unsent text; empty removes it.
    #[arg(long, value_name = "TEXT")]
    pub draft: Option<String>,
}

/// An action on profiles.
#[derive(Clone, Debug, Subcommand)]
pub enum ProfileCommand {
    /// Show profiles. Default: your own.
    Show {
        /// User ids.
        users: Vec<String>,
    },
    /// Change your own profile. Parts that are not given stay as they are.
    Set {
        /// Shown name.
        #[arg(long)]
        name: Option<String>,
        /// Address of a picture.
        #[arg(long, value_name = "URL")]
        avatar_url: Option<String>,
        /// A field of the product. An empty value removes it. May be repeated.
        #[arg(long, value_name = "NAME=VALUE")]
        custom: Vec<String>,
        /// Who sees whether you are online.
        #[arg(long)]
        presence: Option<Seen>,
    },
}

/// Who sees something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Seen {
    /// Everyone who is not blocked.
    Everyone,
    /// Nobody.
    Nobody,
}
