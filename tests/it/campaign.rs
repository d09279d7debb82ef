//! How long the campaigns are: kills, power cuts, random cases. Each has a short form, for every change, and a long one, for
//! which somebody sets `PORTCULLIS_CAMPAIGN=long`.
//!
//! Invariant: the short form reaches every step that the long one repeats.
//! Not here: the campaigns.

/// Whether the long form was asked for.
pub(crate) fn is_long() -> bool {
    match std::env::var("PORTCULLIS_CAMPAIGN").as_deref() {
        Err(_) | Ok("" | "short") => false,
        Ok("long") => true,
        Ok(other) => panic!("PORTCULLIS_CAMPAIGN is `{other}`: set it to `short` or `long`"),
    }
}

/// How often something is done: the short form or the long one.
pub(crate) fn rounds<T>(short: T, long: T) -> T {
    if is_long() { long } else { short }
}

/// The seed that was asked for.
pub(crate) fn seed() -> Option<u64> {
    let seed = std::env::var("PORTCULLIS_CAMPAIGN_SEED").ok()?;
    Some(seed.parse().unwrap_or_else(|_| panic!("PORTCULLIS_CAMPAIGN_SEED is `{seed}`: set it to a number")))
}

/// The first seed of many: the same one for every change, so that one fails by what it changes; another in every long run.
pub(crate) fn first_seed() -> u64 {
    rounds(1, any_seed())
}

/// Another number each time.
pub(crate) fn any_seed() -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0) >> 16
}
