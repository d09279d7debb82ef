//! What refusals of a start advise, in the same words everywhere.
//!
//! Invariant: each is a part of a sentence; the message that it is in names the files.
//! Not here: what is wrong with them (`error`, and the errors of the engine).

/// Where lost or damaged files come from; stands behind "restore it".
pub const FROM_COPY: &str =
    "from a copy of the same moment, or a whole backup into a new directory with `portcullis restore`";

/// How to go on where there is neither; stands at the end. Not where no policy is left: then everything would be allowed.
pub const OR_ACCEPT: &str = ", or accept the loss as the section \"Without a backup\" of docs/operate.md says";
