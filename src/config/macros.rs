//! The macros that the table of settings is written with.
//!
//! Invariant: a field of the configuration, its default and its row are one declaration, so that none can be forgotten.
//! Not here: the rows (`table`).

/// An optional argument, or a default where it is absent.
macro_rules! given_or {
    (; $default:expr) => {
        $default
    };
    ($given:expr; $default:expr) => {
        $given
    };
}

/// A row for a field of `Config`, or of the part of `Config` that is named in brackets.
macro_rules! row {
    (
        $heading:literal, $help:expr, [$($part:ident)?] $field:ident: $type:ty as [$table:literal] $name:expr
        $(, $value_name:literal)? $(, max $max:expr)? $(, unset $unset:literal)?
    ) => {
        Setting {
            table: $table,
            name: $name,
            help: $help,
            heading: $heading,
            value_name: given_or!($($value_name)?; <$type as Value>::NAME),
            unset: given_or!($($unset)?; "none"),
            max: given_or!($($max)?; u64::MAX),
            about: <$type as Value>::about,
            set: |config, given| {
                config$(.$part)?.$field = <$type as Value>::read(given, given_or!($($max)?; u64::MAX))?;
                Ok(())
            },
            show: |config| Value::show(&config$(.$part)?.$field),
        }
    };
}

/// A struct whose fields are settings, its defaults, and a row for each field. Fields after `beside` are part of the
/// struct but have no row here.
macro_rules! settings {
    (
        $(#[$about:meta])*
        $struct:ident at $part:tt, $rows:ident under $heading:literal {
            $(
                $(#[doc = $help:literal])+
                $field:ident: $type:ty = $default:expr $(, as $name:literal)?
                $(, $value_name:literal)? $(, max $max:expr)? $(, unset $unset:literal)?;
            )*
        }
        $(beside { $($(#[$besides:meta])* $beside:ident: $beside_type:ty = $beside_default:expr;)* })?
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $struct {
            $($(#[doc = $help])+ pub $field: $type,)*
            $($($(#[$besides])* pub $beside: $beside_type,)*)?
        }

        impl Default for $struct {
            fn default() -> Self {
                Self { $($field: $default,)* $($($beside: $beside_default,)*)? }
            }
        }

        const $rows: &[Setting] = &[$(row!(
            $heading, concat!($($help),+).trim_ascii(),
            $part $field: $type as [""] given_or!($($name)?; stringify!($field))
            $(, $value_name)? $(, max $max)? $(, unset $unset)?
        )),*];
    };
}

/// An enum whose variants are the values of a setting.
macro_rules! choices {
    (
        $(#[$about:meta])*
        $name:ident { $(#[$doc:meta])* $variant:ident = $text:literal $(, $(#[$docs:meta])* $variants:ident = $texts:literal)+ }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $(#[$doc])* $variant $(, $(#[$docs])* $variants)+ }

        impl Value for $name {
            const NAME: &str = concat!($text $(, "|", $texts)+);

            fn about(_: u64) -> String {
                concat!("`", $text, "`" $(, " or `", $texts, "`")+).to_owned()
            }

            fn read(given: &std::ffi::OsStr, max: u64) -> Result<Self, String> {
                match text(given)? {
                    $text => Ok(Self::$variant),
                    $($texts => Ok(Self::$variants),)+
                    _ => Err(format!("is not {}: write one of them", Self::about(max))),
                }
            }

            fn show(&self) -> Option<toml::Value> {
                Some(self.to_string().into())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(match self { Self::$variant => $text $(, Self::$variants => $texts)+ })
            }
        }
    };
}

/// A row of the table `[limits]`. Its name there is the name of its field without the `_max`.
macro_rules! limit {
    ($part:tt $field:ident, max $max:expr, $help:literal) => {
        row!("Limits", $help, $part $field: usize as ["limits"] without_max(stringify!($field)), max $max)
    };
}

/// The name of a limit in the file: the name of its field without `_max`.
pub(super) const fn without_max(field: &'static str) -> &'static str {
    field.split_at(field.len() - "_max".len()).0
}

pub(super) use {choices, given_or, limit, row, settings};
