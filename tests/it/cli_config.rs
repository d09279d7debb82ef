//! What `portcullis serve` makes of flags, environment and file. The hazard: a setting that is silently another than
//! the one that was meant.
//!
//! The environment is read by clap and cannot be set inside a test process (that is unsafe code), so those tests run
//! the binary with `--check-config`.

use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Args, FromArgMatches};
use portcullis::config::{Config, ConfigErrors, LogFormat, ServeArgs, Setting, settings};

/// Runs `portcullis serve --check-config` with an environment of exactly these variables.
fn check_config(args: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["serve", "--check-config"])
        .args(args)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

/// What flags alone give, whatever is in the environment of the tests.
fn flags<'a>(flags: impl IntoIterator<Item = &'a str>) -> ServeArgs {
    let command = ServeArgs::augment_args(clap::Command::new("serve"));
    let command = command.mut_args(|argument| argument.env(Resettable::Reset));
    let matches = command.get_matches_from(["serve"].into_iter().chain(flags));
    ServeArgs::from_arg_matches(&matches).unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn nothing_given_is_the_default() {
    let config = Config::resolve(&ServeArgs::default(), None).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.listen.to_string(), "127.0.0.1:7070");
}

#[test]
fn file_beats_default() {
    let file = r#"
        listen = "127.0.0.1:1"
        data_dir = "/srv/portcullis"
        log_format = "json"
        request_timeout = "1500ms"
        connections_max = 7

        [limits]
        entries_per_node = 5
    "#;
    let config = Config::resolve(&ServeArgs::default(), Some(file)).unwrap();
    assert_eq!(config.listen.port(), 1);
    assert_eq!(config.data_dir.to_str(), Some("/srv/portcullis"));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.request_timeout, Duration::from_millis(1_500));
    assert_eq!(config.connections_max, 7);
    assert_eq!(config.limits.entries_per_node_max, 5);
    assert_eq!(config.drain_timeout, Config::default().drain_timeout);
}

#[test]
fn argument_beats_file() {
    let args = flags(["--listen=[::1]:2", "--data-dir=elsewhere", "--connections-max=8"]);
    let file = "listen = '127.0.0.1:1'\ndata_dir = 'here'\nconnections_max = 7\nrequests_in_flight_max = 9";
    let config = Config::resolve(&args, Some(file)).unwrap();
    assert_eq!(config.listen.to_string(), "[::1]:2");
    assert_eq!(config.data_dir.to_str(), Some("elsewhere"));
    assert_eq!(config.connections_max, 8);
    assert_eq!(config.requests_in_flight_max, 9);
}

#[test]
fn flag_beats_environment_beats_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("portcullis.toml");
    std::fs::write(&path, "connections_max = 1\nrequest_bytes_max = 1\ndrain_timeout = '1s'").unwrap();
    let environment = [
        ("PORTCULLIS_CONFIG", path.to_str().unwrap()),
        ("PORTCULLIS_CONNECTIONS_MAX", "2"),
        ("PORTCULLIS_REQUEST_BYTES_MAX", "2"),
        ("PORTCULLIS_LIMIT_RANGES_PER_GROUP", "2"),
    ];
    let output = check_config(&["--connections-max", "3"], &environment);
    assert!(output.status.success(), "{}", stderr(&output));
    let config = Config::resolve(&ServeArgs::default(), Some(stdout(&output))).unwrap();
    assert_eq!(config.connections_max, 3);
    assert_eq!(config.request_bytes_max, 2);
    assert_eq!(config.limits.ranges_per_group_max, 2);
    assert_eq!(config.drain_timeout, Duration::from_secs(1));
}

#[test]
fn every_fault_is_reported_at_once() {
    let args = flags([
        "--listen=localhost",
        "--insecure=perhaps",
        "--log-filter=portcullis=loudly",
        "--request-timeout=30",
        "--drain-timeout=0s",
        "--connections-max=0",
        "--request-bytes-max=67108865",
    ]);
    let file = "log_format = 'xml'\ndata_dir = ''\nlisten_adress = 1\n[limits]\norganizations = -1\nrules = 1";
    let errors = Config::resolve(&args, Some(file)).unwrap_err();
    let settings: Vec<_> = errors.faults.iter().map(|fault| fault.setting.as_str()).collect();
    assert_eq!(
        settings,
        [
            "`--listen`",
            "`--insecure`",
            "`data_dir` on line 2 of the configuration file",
            "`--request-timeout`",
            "`--drain-timeout`",
            "`--connections-max`",
            "`--request-bytes-max`",
            "`log_format` on line 1 of the configuration file",
            "`--log-filter`",
            "`limits.organizations` on line 5 of the configuration file",
            "`limits.rules` on line 6 of the configuration file",
            "`listen_adress` on line 3 of the configuration file",
        ],
    );
    assert!(errors.faults.iter().all(|fault| !fault.advice.is_empty()));
}

/// A value of the wrong shape must not be taken for one that is absent.
#[test]
fn file_of_wrong_shapes_is_refused() {
    for file in
        ["listen = 7070", "listen = ['127.0.0.1:1']", "limits = 5", "[insecure]", "connections_max = 1.5", "[[limits]]"]
    {
        let errors = Config::resolve(&ServeArgs::default(), Some(file)).unwrap_err();
        assert_eq!(errors.faults.len(), 1, "{file}: {errors}");
    }
}

#[test]
fn file_that_is_no_toml_is_named_with_its_line() {
    let args = flags(["--connections-max=0"]);
    let errors = Config::resolve(&args, Some("drain_timeout = '1s'\nlisten =")).unwrap_err();
    assert_eq!(errors.faults.len(), 2, "{errors}");
    assert!(errors.to_string().contains("line 2"), "{errors}");
}

/// The hazard: an unauthenticated server that the whole network can reach.
#[test]
fn address_of_other_machines_needs_insecure() {
    for listen in ["0.0.0.0:7070", "[::]:7070", "192.0.2.1:7070", "[::ffff:192.0.2.1]:7070"] {
        let args = flags(["--listen", listen]);
        let errors = Config::resolve(&args, None).unwrap_err();
        let message = errors.to_string();
        assert!(message.contains(listen) && message.contains("`--insecure`"), "{message}");
        assert!(Config::resolve(&args, Some("insecure = true")).is_ok());
        let args = flags(["--listen", listen, "--insecure"]);
        assert!(Config::resolve(&args, Some("insecure = false")).is_ok());
        let args = flags(["--listen", listen, "--insecure=false"]);
        assert!(Config::resolve(&args, Some("insecure = true")).is_err());
    }
    for listen in ["127.0.0.1:0", "127.9.9.9:7070", "[::1]:7070", "[::ffff:127.0.0.1]:7070"] {
        assert!(Config::resolve(&flags(["--listen", listen]), None).is_ok(), "{listen}");
    }
}

#[test]
fn printed_configuration_resolves_to_itself() {
    let limits = "[limits]\norganizations = 1\ngroups_per_organization = 3\nnodes_per_organization = 4\n";
    let file = format!(
        "listen = '0.0.0.0:7070'\ninsecure = true\ndata_dir = '/a \"b\"'\nlog_filter = 'warn,portcullis=debug'\n\
         request_timeout = '90s'\ndrain_timeout = '2m'\n{limits}"
    );
    let config = Config::resolve(&ServeArgs::default(), Some(&file)).unwrap();
    assert_eq!(Config::resolve(&ServeArgs::default(), Some(&config.to_toml())).unwrap(), config);
}

#[test]
fn check_config_reports_faults_with_status_1() {
    let output =
        check_config(&["--listen", "0.0.0.0:1", "--log-format", "xml"], &[("PORTCULLIS_DRAIN_TIMEOUT", "soon")]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    for setting in ["--listen", "--log-format", "PORTCULLIS_DRAIN_TIMEOUT"] {
        assert!(stderr(&output).contains(setting), "{}", stderr(&output));
    }
}

#[test]
fn missing_file_is_named() {
    let output = check_config(&["--config", "/nowhere/portcullis.toml"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("`/nowhere/portcullis.toml`"), "{}", stderr(&output));
}

#[test]
fn a_fault_is_said_once() {
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", "Cargo.toml/data"];
    let output = Command::new(env!("CARGO_BIN_EXE_portcullis")).args(serve).env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output).matches("(os error 20)").count(), 1, "{}", stderr(&output));
}

/// The help is what people read first: it tells the default that applies, the variable and a heading.
#[test]
fn help_names_the_defaults_that_are_used() {
    let mut command = portcullis::cli::Cli::command();
    let serve = command.find_subcommand_mut("serve").unwrap();
    for setting in settings() {
        let argument =
            serve.get_arguments().find(|argument| argument.get_id() == setting.flat_name().as_str()).unwrap();
        let help = argument.get_help().unwrap().to_string();
        let default = setting.default_value().unwrap_or_else(|| setting.unset.to_owned());
        assert!(help.ends_with(&format!("[default: {default}]")), "{}: {help}", setting.key());
        assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(setting.variable().as_str()));
        assert_eq!(argument.get_help_heading(), Some(setting.heading));
    }
}

/// A value that the setting takes and that is not its default, and one that it refuses.
fn samples(setting: &Setting) -> (String, String) {
    let (max, default) = (setting.max, setting.default_value());
    match setting.value_name {
        "ADDRESS:PORT" => ("127.0.0.1:9".to_owned(), "localhost".to_owned()),
        "FILTER" => ("debug".to_owned(), "portcullis=loudly".to_owned()),
        "PREFIX,…" => ("2001:db8::/32".to_owned(), "2001:db8::/33".to_owned()),
        "DURATION" if max == u64::MAX => ("7ms".to_owned(), "0ms".to_owned()),
        "DURATION" => ("7ms".to_owned(), format!("{}ms", max + 1)),
        "COUNT" | "BYTES" => (max.to_string(), (max + 1).to_string()),
        "FILE" | "DIR" if max == u64::MAX => ("/else where".to_owned(), String::new()),
        "PATH" => ("/".repeat(usize::try_from(max).unwrap()), "/".repeat(usize::try_from(max).unwrap() + 1)),
        choice => (choice.split('|').find(|word| default.as_deref() != Some(word)).unwrap().to_owned(), "x".to_owned()),
    }
}

/// A file that sets one setting. Numbers and truth values are written without quotes.
fn file(setting: &Setting, value: &str) -> String {
    let Setting { table, name, .. } = setting;
    let table = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
    let bare = matches!(setting.value_name, "COUNT" | "BYTES" | "true|false") && value.len() < 20 && value != "x";
    if bare { format!("{table}{name} = {value}\n") } else { format!("{table}{name} = '{value}'\n") }
}

/// The settings of a configuration as keys and values of its file.
fn entries(toml: &str) -> BTreeSet<(String, String)> {
    let text = |value: &toml::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let table = toml.parse::<toml::Table>().unwrap();
    let entry = |(key, value): (&String, &toml::Value)| match value.as_table() {
        None => vec![(key.clone(), text(value))],
        Some(table) => table.iter().map(|(inner, value)| (format!("{key}.{inner}"), text(value))).collect(),
    };
    table.iter().flat_map(entry).collect()
}

/// The hazard: a row whose flag, variable or key sets another setting, or none.
#[test]
fn every_setting_is_set_by_its_flag_its_variable_and_its_key() {
    let defaults = entries(&Config::default().to_toml());
    for setting in settings() {
        let (value, _) = samples(setting);
        let flag = [format!("{}={value}", setting.flag())];
        let by_flag = Config::resolve(&flags(flag.iter().map(String::as_str)), None).unwrap().to_toml();
        let by_key = Config::resolve(&ServeArgs::default(), Some(&file(setting, &value))).unwrap().to_toml();
        let output = check_config(&[], &[(&setting.variable(), &value)]);
        assert!(output.status.success(), "{}: {}", setting.key(), stderr(&output));
        for toml in [&by_flag, &by_key, stdout(&output)] {
            let set: Vec<_> = entries(toml).difference(&defaults).cloned().collect();
            assert_eq!(set, [(setting.key(), value.clone())]);
        }
    }
}

/// The hazard: an interface that lets pass what the others refuse, or a fault that hides the next.
#[test]
fn every_bound_holds_for_flag_variable_and_key_and_all_faults_come_at_once() {
    let wrong: Vec<_> = settings().map(|setting| (setting, samples(setting).1)).collect();
    let told = |errors: &ConfigErrors| errors.faults.iter().map(|fault| fault.setting.clone()).collect::<Vec<_>>();

    let given: Vec<_> = wrong.iter().map(|(setting, value)| format!("{}={value}", setting.flag())).collect();
    let errors = Config::resolve(&flags(given.iter().map(String::as_str)), None).unwrap_err();
    assert_eq!(told(&errors), settings().map(|setting| format!("`{}`", setting.flag())).collect::<Vec<_>>());

    let variables: Vec<_> = wrong.iter().map(|(setting, value)| (setting.variable(), value.as_str())).collect();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let output = check_config(&[], &variables);
    assert_eq!(output.status.code(), Some(1));
    for (name, value) in variables {
        let told = if value.is_empty() { format!("`{name}`: ") } else { format!("`{name}`: `{value}` ") };
        assert!(stderr(&output).contains(&told), "{told}: {}", stderr(&output));
    }

    let mut text = String::new();
    for (at, (setting, value)) in wrong.iter().enumerate() {
        let file = file(setting, value);
        let first = wrong.iter().position(|(other, _)| other.table == setting.table) == Some(at);
        text += if first { &file } else { file.split_once("]\n").map_or(file.as_str(), |(_, line)| line) };
    }
    let errors = Config::resolve(&ServeArgs::default(), Some(&text)).unwrap_err();
    for ((setting, _), told) in wrong.iter().zip(told(&errors)) {
        assert!(told.starts_with(&format!("`{}` on line ", setting.key())), "{told}");
    }
    assert_eq!(errors.faults.len(), wrong.len(), "{errors}");
}

/// The hazard: somebody who is told that a key is wrong and not which is right.
#[test]
fn a_key_that_is_no_setting_is_named_with_the_one_that_was_meant() {
    for (file, meant) in [
        ("limit_organizations = 5", "`limits.organizations`"),
        ("[limits]\norganisations = 5", "`limits.organizations`"),
        ("audit_shel = 'sync'", "`audit_shell`"),
        ("data-dir = '/srv'", "`data_dir`"),
        ("limits = 5", "`[limits]`"),
    ] {
        let errors = Config::resolve(&ServeArgs::default(), Some(file)).unwrap_err();
        assert_eq!(errors.faults.len(), 1, "{errors}");
        assert!(errors.faults[0].advice.contains(meant), "{errors}");
    }
}

#[test]
fn prefixes_of_translators_are_each_taken_once_and_all_wrong_ones_are_named() {
    let prefixes = |text: &str| {
        let file = format!("nat64_prefixes = '{text}'");
        Config::resolve(&ServeArgs::default(), Some(&file)).map(|config| {
            let texts = config.nat64_prefixes.as_slice().iter().map(ToString::to_string);
            (texts.collect::<Vec<_>>(), Config::resolve(&ServeArgs::default(), Some(&config.to_toml())) == Ok(config))
        })
    };
    let valid = |text: &str, expected: &[&str]| {
        assert_eq!(prefixes(text), Ok((expected.iter().map(|text| (*text).to_owned()).collect(), true)), "{text}");
    };
    valid("", &[]);
    valid("2001:db8:64::/96", &["2001:db8:64::/96"]);
    valid(" 2001:db8:64:0::/96,64:ff9b:1::/48 , 2001:db8:64::/96", &["64:ff9b:1::/48", "2001:db8:64::/96"]);
    let advice = |text: &str| prefixes(text).unwrap_err().faults[0].advice.clone();
    assert_eq!(
        advice("2001:db8::/95, 192.0.2.0/24,"),
        "has wrong prefixes: `2001:db8::/95` has no prefix length of a translator: write /32, /40, /48, /56, /64 or /96 \
         (RFC 6052); `192.0.2.0/24` is not an IPv6 prefix: write one such as `64:ff9b:1::/96`; a comma has no prefix \
         beside it"
    );
    let many: Vec<String> = (1..=17).map(|number| format!("2001:db8:{number}::/96")).collect();
    assert_eq!(advice(&many.join(",")), "has 17 prefixes: give at most 16");
    assert_eq!(prefixes(&many[..16].join(",")).map(|(texts, _)| texts.len()), Ok(16));
}

/// The hazard: retention that was set and removes nothing for a day.
#[test]
fn a_retention_that_the_longest_session_overrules_is_warned_about() {
    let checked = |args: &[&str]| {
        let checked = check_config(args, &[]);
        assert!(checked.status.success() && !checked.stdout.is_empty());
        String::from_utf8(checked.stderr).unwrap()
    };
    let warned = checked(&["--audit-retention-age", "5s"]);
    assert!(warned.starts_with("warning: `audit_retention_age` is 5s and `session_max_age` 86400s"), "{warned}");
    assert_eq!(checked(&["--audit-retention-age", "1h", "--session-max-age", "1h"]), "");
    assert_eq!(checked(&[]), "");
}
