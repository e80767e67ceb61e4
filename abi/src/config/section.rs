//! The definition of a section: its keys with their documentation, bounds and defaults.

use super::{bounds::Bound, value::Value};

/// A part of the configuration: keys, or further sections.
pub trait Section {
    /// The purpose of the section.
    fn docs(&self) -> String;
    /// The keys, in the order of their definition.
    fn keys(&self) -> Vec<Key>;
    /// The sections in this one, with their names.
    fn sections(&self) -> Vec<(&'static str, &dyn Section)>;
}

/// A key and its definition.
#[derive(Debug)]
pub struct Key {
    /// Its name in the section.
    pub name: &'static str,
    /// The meaning of the key.
    pub docs: String,
    /// The default, as TOML.
    pub default: String,
    /// The bounds, as texts that follow "must be".
    pub allowed: Vec<String>,
    /// Violated bounds: a suffix of the key (`[2]` for an item of a list) and the bound.
    pub violations: Vec<(String, String)>,
}

/// Makes a [`Key`] from its definition. The value is only checked and not kept: it may be a secret.
pub(super) fn key<T: Value>(
    name: &'static str,
    docs: &[&str],
    value: &T,
    default: &T,
    bounds: Vec<Bound<T>>,
) -> Key {
    Key {
        name,
        docs: join(docs),
        default: default.to_toml(),
        violations: bounds.iter().flat_map(|bound| bound.violations(value)).collect(),
        allowed: bounds.into_iter().map(|bound| bound.allowed).collect(),
    }
}

/// Joins the lines of a doc comment.
pub(super) fn join(docs: &[&str]) -> String {
    docs.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// Defines a section. A new key needs no other definition: `deploy/godwit.toml` and `docs/configuration.md` are generated
/// from it.
macro_rules! section {
    (
        $(#[doc = $docs:literal])+
        $name:ident {
            $(
                $(#[doc = $key_docs:literal])+
                $(#[bounds($($bound:expr),+)])?
                $(#[serde($($serde:tt)+)])?
                $key:ident: $type:ty = $default:expr,
            )*
        }
        $(sections { $($section:ident: $section_type:ident,)+ })?
    ) => {
        $(#[doc = $docs])+
        #[derive(Clone, Debug, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $(
                $(#[doc = $key_docs])+
                $(#[serde($($serde)+)])?
                pub $key: $type,
            )*
            $($(
                #[doc = concat!("The section `", stringify!($section), "`.")]
                pub $section: $section_type,
            )+)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)* $($($section: $section_type::default(),)+)? }
            }
        }

        impl $crate::config::Section for $name {
            fn docs(&self) -> String {
                $crate::config::section::join(&[$($docs),+])
            }

            fn keys(&self) -> Vec<$crate::config::Key> {
                let default = Self::default();
                vec![$($crate::config::section::key(
                    stringify!($key),
                    &[$($key_docs),+],
                    &self.$key,
                    &default.$key,
                    vec![$($($bound),+)?],
                )),*]
            }

            fn sections(&self) -> Vec<(&'static str, &dyn $crate::config::Section)> {
                vec![$($((stringify!($section), &self.$section as _)),+)?]
            }
        }
    };
}
