//! What `portcullis serve` makes of flags, environment and file. The hazard: a setting that is silently another than
//! the one that was meant.
//!
//! The environment is read by clap and cannot be set inside a test process (that is unsafe code), so those tests run
//! the binary with `--check-config`.

use std::process::{Command, Output};
use std::time::Duration;

use portcullis::config::{Config, LogFormat, ServeArgs};

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
    let args = ServeArgs {
        listen: Some("[::1]:2".to_owned()),
        data_dir: Some("elsewhere".into()),
        connections_max: Some("8".to_owned()),
        ..ServeArgs::default()
    };
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
    let args = ServeArgs {
        listen: Some("localhost".to_owned()),
        insecure: Some("perhaps".to_owned()),
        log_filter: Some("portcullis=loudly".to_owned()),
        request_timeout: Some("30".to_owned()),
        drain_timeout: Some("0s".to_owned()),
        connections_max: Some("0".to_owned()),
        request_bytes_max: Some("67108865".to_owned()),
        ..ServeArgs::default()
    };
    let file = "log_format = 'xml'\ndata_dir = ''\nlisten_adress = 1\n[limits]\norganizations = -1\nrules = 1";
    let errors = Config::resolve(&args, Some(file)).unwrap_err();
    let settings: Vec<_> = errors.faults.iter().map(|fault| fault.setting.as_str()).collect();
    assert_eq!(
        settings,
        [
            "`--insecure` or `PORTCULLIS_INSECURE`",
            "`--listen` or `PORTCULLIS_LISTEN`",
            "`data_dir` in the configuration file",
            "`log_format` in the configuration file",
            "`--log-filter` or `PORTCULLIS_LOG_FILTER`",
            "`--request-timeout` or `PORTCULLIS_REQUEST_TIMEOUT`",
            "`--drain-timeout` or `PORTCULLIS_DRAIN_TIMEOUT`",
            "`--connections-max` or `PORTCULLIS_CONNECTIONS_MAX`",
            "`--request-bytes-max` or `PORTCULLIS_REQUEST_BYTES_MAX`",
            "`limits.organizations` in the configuration file",
            "`limits.rules` in the configuration file",
            "`listen_adress` in the configuration file",
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
    let args = ServeArgs { connections_max: Some("0".to_owned()), ..ServeArgs::default() };
    let errors = Config::resolve(&args, Some("drain_timeout = '1s'\nlisten =")).unwrap_err();
    assert_eq!(errors.faults.len(), 2, "{errors}");
    assert!(errors.to_string().contains("line 2"), "{errors}");
}

/// The hazard: an unauthenticated server that the whole network can reach.
#[test]
fn address_of_other_machines_needs_insecure() {
    for listen in ["0.0.0.0:7070", "[::]:7070", "192.0.2.1:7070", "[::ffff:192.0.2.1]:7070"] {
        let args = ServeArgs { listen: Some(listen.to_owned()), ..ServeArgs::default() };
        let errors = Config::resolve(&args, None).unwrap_err();
        let message = errors.to_string();
        assert!(message.contains(listen) && message.contains("`--insecure`"), "{message}");
        assert!(Config::resolve(&args, Some("insecure = true")).is_ok());
        let args = ServeArgs { insecure: Some("true".to_owned()), ..args };
        assert!(Config::resolve(&args, Some("insecure = false")).is_ok());
        let args = ServeArgs { insecure: Some("false".to_owned()), ..args };
        assert!(Config::resolve(&args, Some("insecure = true")).is_err());
    }
    for listen in ["127.0.0.1:0", "127.9.9.9:7070", "[::1]:7070", "[::ffff:127.0.0.1]:7070"] {
        let args = ServeArgs { listen: Some(listen.to_owned()), ..ServeArgs::default() };
        assert!(Config::resolve(&args, None).is_ok(), "{listen}");
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

/// The help texts repeat the defaults, for clap does not know them.
#[test]
fn help_names_the_defaults_that_are_used() {
    let mut command = portcullis::cli::Cli::command();
    let serve = command.find_subcommand_mut("serve").unwrap();
    let defaults = Config::default().to_toml().parse::<toml::Table>().unwrap();
    let (limits, settings): (Vec<_>, Vec<_>) = defaults.into_iter().partition(|(_, value)| value.is_table());
    let limits = limits.into_iter().flat_map(|(_, table)| table.as_table().unwrap().clone());
    let limits = limits.map(|(key, value)| (format!("limit_{key}"), value));
    for (key, value) in settings.into_iter().chain(limits).filter(|(key, _)| key != "insecure") {
        let argument = serve.get_arguments().find(|argument| argument.get_id() == key.as_str()).unwrap();
        let help = argument.get_help().unwrap().to_string();
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        assert!(help.ends_with(&format!("[default: {value}]")), "{key}: {help}");
        let environment = format!("PORTCULLIS_{}", key.to_uppercase());
        assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(environment.as_str()));
    }
}
