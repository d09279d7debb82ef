//! Conversions between enums of ours and enums of messages with the same variants.
//!
//! Invariant: a variant that only one side has breaks the build; `Unspecified`, which all messages have, is none of ours.
//! Not here: the enums.

/// Declares the function from our enum to the message's and, where it is named, the one back.
macro_rules! same_variants {
    ($visibility:vis $to:ident: $ours:ident => $module:ident::$theirs:ident { $($variant:ident)+ }) => {
        $visibility fn $to(ours: $ours) -> $module::$theirs {
            match ours {
                $($ours::$variant => $module::$theirs::$variant,)+
            }
        }
    };
    ($visibility:vis $to:ident, $from:ident: $ours:ident => $module:ident::$theirs:ident { $($variant:ident)+ }) => {
        $crate::enums::same_variants!($visibility $to: $ours => $module::$theirs { $($variant)+ });

        $visibility fn $from(theirs: $module::$theirs) -> Option<$ours> {
            match theirs {
                $module::$theirs::Unspecified => None,
                $($module::$theirs::$variant => Some($ours::$variant),)+
            }
        }
    };
}

pub(crate) use same_variants;
