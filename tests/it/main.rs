//! The integration tests: behaviour through the public surface, one module a subject or hazard.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that meets the unexpected must fail, and helpers are outside of #[test] functions"
)]

/// Erasing who changed the policy, or leaving them.
mod audit_actor;
/// The audit log and the sessions through the API.
mod audit_api;
/// Checkpoints and signed notes: published ones, forged ones, arbitrary bytes.
mod audit_checkpoint;
/// The stored form of records, and the terms under which they are found.
mod audit_codec;
/// What erasable personal data and records hash to.
mod audit_commitment;
/// `kill -9` and power cuts in the middle of Checks.
mod audit_crash;
/// Full, failing and hanging disks under the audit log.
mod audit_disk;
/// Sessions that are ended again.
mod audit_ended;
/// An engine on real files, without gRPC.
mod audit_engine;
mod audit_erase;
/// What a PEP relies on: heartbeats, and the order of answers and events.
mod audit_events;
/// The key that signs the audit log, where it is gone, another one's, or new.
mod audit_key;
mod audit_key_forged;
/// Checks whose records must survive.
mod audit_load;
/// The Merkle tree: published vectors, an independent crate, changed proofs, pruned records.
mod audit_merkle;
/// Lists that retention overtakes.
mod audit_overtaken;
/// Retention, and revocation of many sessions.
mod audit_retention;
/// Retention does what its settings say.
mod audit_retention_bounds;
/// What a rule was, in the records of what it denied.
mod audit_rule_text;
/// Tampering with the files of a log.
mod audit_tamper;
/// Following the log.
mod audit_watch;
/// Backups of a running service, and what is there after they are restored.
mod backup;
/// Backups while the files of the audit log come and go.
mod backup_engine;
mod backup_erase;
/// Files that are no whole backups, and clients that stall or vanish.
mod backup_faults;
/// How long campaigns are.
mod campaign;
/// Batches and streams of Checks.
mod checks_api;
/// The command line that applies policy files: what stays, what it asks, what it deletes.
mod cli_apply;
/// The command line over the audit log.
mod cli_audit;
/// What `serve` takes, and what of it wins.
mod cli_config;
/// Everyday edits through the command line.
mod cli_edit;
mod cli_effects;
/// The flags that errors of the command line name.
mod cli_flags;
/// The command line over address groups.
mod cli_groups;
/// The command line as it is typed.
mod cli_parse;
/// The command line over whole policies and revisions.
mod cli_policy;
/// Previews through the command line.
mod cli_preview;
/// The session of an administrator.
mod cli_session;
/// A clock that a test moves.
mod clock;

/// Random jumps of the wall clock.
mod clock_campaign;
/// Ages over corrections of the clock: retention, the overview, renewed leases.
mod clock_corrected;
/// Rules that have expired are marked, and stay so.
mod clock_expiry;
/// What expiry costs.
mod clock_expiry_many;
/// The real binary under a false wall clock.
mod clock_false;
/// What jumps of the wall clock do.
mod clock_follows;
mod clock_kept;
mod clock_killed;
mod clock_marks;
/// What decision time must be.
mod clock_model;
mod clock_settles;
/// What happens to clocks.
mod clock_steps;
/// Many threads that read one clock.
mod clock_threads;
/// What must hold of time.
mod clock_truth;
mod clock_unsettled;
/// Changes that end the waiting of others and wait themselves.
mod confirmations_api;
/// `kill -9`, and a sled directory that is lost or damaged.
mod crash_kill;
/// Power cuts.
mod crash_power;
/// Changes that are too large for an answer, a record or a text.
mod cut;
/// The compiled policy against the naive evaluator.
mod decisions;
/// The direct way of Checks against the service behind it.
mod direct_check;
mod direct_wait;
/// Starts on a file system that is full.
mod disk_full;
/// The end of the process when its surroundings fail.
mod ending;
/// The end of the service on a disk that takes nothing.
mod ending_full;
/// The engine over a clock and a disk that tests control.
mod engine;
/// Single entries of allowlists.
mod entries_api;
/// Backups beside erasures.
mod erase_backup;
/// Erasures that a power cut or a failing disk interrupts.
mod erase_crash;
/// Erasures that a kill or a signal interrupts.
mod erase_kill;
/// Erasures beside checks.
mod erase_race;
/// What an erasure tells, and the sessions without a user.
mod erase_told;
/// Erasures that are interrupted twice.
mod erase_twice;
/// Why a decision is what it is.
mod explain;
/// What may happen to a service.
mod faults_actions;
/// The calls that are made while anything may happen.
mod faults_calls;
/// What an engine stands on while everything may fail.
mod faults_disk;
/// Anything that may happen to an engine, against what it has acknowledged.
mod faults_engine;
/// What holds whatever happens.
mod faults_invariants;
/// What was acknowledged, and what may have happened.
mod faults_model;
/// A small disk.
mod faults_place;
/// Policies in the campaign over faults.
mod faults_policy;
/// The built service, whatever surrounds it.
mod faults_process;
/// Many schedules at a time, each by its seed.
mod faults_schedules;
/// Time in the campaign over faults.
mod faults_time;
/// Gates and policy tests through the API.
mod gates_api;
/// Address groups through the API.
mod groups_api;
/// A running service.
mod harness;
/// Nodes through the API.
mod hierarchy_api;
/// What a change permits and denies differently, against enumerating every address.
mod impact;
/// Limits of a policy's size.
mod limits_api;
/// What was given out in a history that is lost.
mod lineage;
/// Every etag and page token of the API.
mod lineage_table;
/// Pages of every list.
mod lists_api;
/// A load of changes whose acknowledgements are remembered.
mod load;
/// The log while the audit log cannot be written.
mod log_failures;
/// What an operator finds in the log.
mod log_lines;
/// The log and its reader.
mod logs;
/// Malformed Checks.
mod malformed_audit;
mod malformed_check;
/// Malformed requests about address groups.
mod malformed_groups;
/// Malformed requests of HierarchyService.
mod malformed_hierarchy;
/// Malformed requests about rules.
mod malformed_rules;
/// Calls that the transport refuses.
mod malformed_transport;
/// Match counts over a kill.
mod match_counts_crash;
/// Policies whose rules expire, and what they decide at every moment.
mod moments;
/// Changes whose effect comes later, through the API.
mod moments_api;
/// Changes of policies in which very many rules expire: judged in few steps, or refused.
mod moments_bounded;
/// Changes judged at every moment against enumerating them.
mod moments_judged;
/// The same by every way of changing a policy.
mod moments_paths;
mod moments_revoked;
/// The semantics as a slow, obvious evaluator.
mod naive;
/// Changes of policy whose audit record is not durable.
mod owed;
/// Address groups patched by streams.
mod patch_ranges;
/// Effective access and permitted ranges, against a naive computation.
mod permitted_api;
/// The whole policy in one message, through the API.
mod policy_api;
/// Documents put in place of random policies, against what a naive reading says.
mod policy_documents;
/// Where what is wrong with a policy is, through the API.
mod policy_faults;
/// Faulty policy files, and what is said of them.
mod policy_file_faults;
/// Gates, tests and consent for changes of the whole policy, through the API.
mod policy_guards;
/// What is the same after a policy is applied, through the API.
mod policy_identity;
/// Policies that have some sections only, through the API.
mod policy_sections;
/// What refusals tell of policy tests, and tests that have ended.
mod policy_tests_api;
/// The portal's own examples, through real gRPC.
mod portal_examples;
/// Files of journals that are removed while in use.
mod presence;
/// Previews through the API.
mod preview_api;
/// Problems of policies, against enumerating every address.
mod problems;
/// Problems through the API and the command line.
mod problems_api;
/// Problems of policies that take too many steps.
mod problems_bounds;
/// Problems that begin later, through the API and the command line.
mod problems_moments_api;
/// Denied addresses that get in translated, against asking about every twin.
mod problems_translated;
/// Failing tests and guarded addresses, against deciding at every moment.
mod problems_whole;
/// The service as a process of its own.
mod process;
/// The announced Internet in a deny rule.
mod real_ranges;
/// A table of refusals against one server that must go on.
mod refusals;
/// A restart on the same data directory, and a second server on it.
mod restart;
/// Revisions, going back, and changes that wait for their confirmation.
mod revisions_api;
/// Rules through the API.
mod rules_api;
/// What rules do to Checks, through the API.
mod rules_decide_api;
/// Replacing all rules, and changes that are only validated, through the API.
mod rules_replace_api;
/// Health, reflection, overload, the drain.
mod service;
/// What was ever stored is read for ever.
mod sessions_race;
mod sessions_recovery;
mod sessions_table;
/// Policies that are tried and not enforced.
mod shadow_api;
/// What stays permitted by others of what is removed.
mod still_in_api;
/// The data directory: one owner, one format, room for bad times.
mod store_directory;
/// Disks that fail and lose power, for the tests of what is stored.
mod store_disk;
/// The journal: the same suite over all adapters.
mod store_journal;
/// The journal when the disk fails, the process dies or the power goes, at every operation.
mod store_journal_crash;
/// The journal's files: torn, damaged, missing, foreign.
mod store_journal_files;
/// The journal that is only read, and what can be read of a damaged one.
mod store_journal_reader;
/// Redacting the journal when the disk fails, the process dies or the power goes, at every operation.
mod store_journal_redact_crash;
/// Snapshots: written whole, damaged ones passed over.
mod store_snapshots;
/// State stores: the same suite over all adapters, and what sled finds after a crash.
mod store_state;
/// An audit log and sessions that earlier versions wrote.
mod stored_audit;
/// A backup that an earlier version wrote.
mod stored_backup;
mod stored_format;
/// Random policies and what to ask them.
mod strategies;
/// A terminal and the program at it.
mod terminal;
/// Threads of the service that panic.
mod threads;
/// What is said about files that are damaged, lost or moved.
mod told_faults;
/// The Unix socket for sidecars.
mod unix_socket;
/// Starts on directories of which parts are older, missing, or another's.
mod witnesses;
/// Single files of the audit log that are missing, damaged or another log's.
mod witnesses_audit;
/// Starts without single files, and what only one witness knows.
mod witnesses_files;
/// Data directories to do harm to.
mod witnesses_history;
/// The same starts after a kill.
mod witnesses_killed;
/// Starts beside another policy, or a snapshot of one.
mod witnesses_policy;
