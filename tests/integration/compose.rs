//! The compose stack, checked as far as it goes without a Docker engine.
//!
//! What a container engine would find out at the first start is found out here: a volume that
//! nobody declared, a variable that no role knows, a file that the image wants and the repository
//! lacks.
//! The configuration of the broker is tried on a real one.
//! That the separate processes work together is shown elsewhere, by running them.

mod image;
mod nats;
mod stack;

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nexus_tests::settings;

use stack::{Service, Stack};

/// The services that are the `nexus` executable, by the role that each plays.
const ROLES: [&str; 3] = ["gateway", "projector", "archiver"];

/// 45 s: the 30 s that answers under way are given (`NEXUS_DRAIN_SECONDS`), and time to put away
/// what they left.
const ROLE_GRACE_SECONDS_MIN: u64 = 45;

#[test]
fn has_the_services_of_the_production_shape() -> Result<()> {
    let stack = Stack::read()?;
    let names: Vec<&str> = stack.services.keys().map(String::as_str).collect();
    assert_eq!(names, ["archiver", "gateway", "nats", "projector", "redis"]);
    for role in ROLES {
        let service = stack.service(role)?;
        assert_eq!(service.command, [role], "the service {role} plays its role");
        assert_eq!(
            service.image,
            stack.service("gateway")?.image,
            "all roles are one image"
        );
        assert_eq!(
            service.build,
            stack.service("gateway")?.build,
            "all roles are one image"
        );
    }
    Ok(())
}

#[test]
fn every_service_is_watched_restarted_and_given_time_to_stop() -> Result<()> {
    for (name, service) in Stack::read()?.services {
        let check = service
            .healthcheck
            .with_context(|| format!("{name} has no health check"))?;
        assert_eq!(
            check.test.first().map(String::as_str),
            Some("CMD"),
            "{name}: {check:?}"
        );
        assert!(
            check.test.len() > 1,
            "the health check of {name} does nothing"
        );
        for bound in [&check.interval, &check.timeout, &check.start_period] {
            assert!(stack::seconds(bound)? > 0, "{name}: {check:?}");
        }
        assert!(check.retries > 0, "{name}: {check:?}");
        assert_eq!(service.restart.as_deref(), Some("unless-stopped"), "{name}");
        let grace = service
            .stop_grace_period
            .with_context(|| format!("{name} may be killed"))?;
        let enough = if ROLES.contains(&name.as_str()) {
            ROLE_GRACE_SECONDS_MIN
        } else {
            10
        };
        assert!(
            stack::seconds(&grace)? >= enough,
            "{name} gets {grace} to stop"
        );
        let logging = service
            .logging
            .with_context(|| format!("the log of {name} is unbounded"))?;
        assert!(
            logging.options.contains_key("max-size"),
            "{name}: {logging:?}"
        );
        assert!(
            logging.options.contains_key("max-file"),
            "{name}: {logging:?}"
        );
    }
    Ok(())
}

#[test]
fn every_service_waits_for_what_it_needs() -> Result<()> {
    let stack = Stack::read()?;
    for role in ROLES {
        let service = stack.service(role)?;
        let needs_redis = service.environment.contains_key("NEXUS_REDIS_URL");
        let needed = if needs_redis {
            vec!["nats", "redis"]
        } else {
            vec!["nats"]
        };
        let waits: Vec<&str> = service.depends_on.keys().map(String::as_str).collect();
        assert_eq!(waits, needed, "{role}");
        for (other, dependency) in &service.depends_on {
            assert_eq!(
                dependency.condition, "service_healthy",
                "{role} waits for {other}"
            );
        }
        for (setting, port) in [
            ("NEXUS_NATS_URL", "nats:4222"),
            ("NEXUS_REDIS_URL", "redis:6379"),
        ] {
            if let Some(Some(url)) = service.environment.get(setting) {
                assert!(url.ends_with(port), "{role}: {setting}={url}");
            }
        }
    }
    Ok(())
}

#[test]
fn volumes_are_declared_and_used() -> Result<()> {
    let stack = Stack::read()?;
    let used: BTreeSet<String> = stack
        .services
        .values()
        .flat_map(Service::mounts)
        .map(|(volume, _folder)| volume)
        .collect();
    let declared: BTreeSet<String> = stack.volumes.keys().cloned().collect();
    assert_eq!(used, declared);
    let secrets: BTreeSet<String> = stack
        .services
        .values()
        .flat_map(|service| service.secrets.clone())
        .collect();
    assert_eq!(secrets, stack.secrets.keys().cloned().collect());
    Ok(())
}

#[test]
fn what_must_survive_lies_on_a_named_volume() -> Result<()> {
    let stack = Stack::read()?;
    for role in ROLES {
        let service = stack.service(role)?;
        for setting in ["NEXUS_DATA_DIR", "NEXUS_READ_MODEL_DIR", "NEXUS_BACKUP_DIR"] {
            let Some(Some(folder)) = service.environment.get(setting) else {
                assert!(
                    setting == "NEXUS_BACKUP_DIR" && role != "archiver",
                    "{role}: {setting}"
                );
                continue;
            };
            service
                .volume_at(folder)
                .with_context(|| format!("{role}: {setting}={folder}"))?;
        }
    }
    let outbox = stack.service("gateway")?.volume_at("/var/lib/nexus")?;
    let users = stack.services.values().flat_map(Service::mounts);
    assert_eq!(
        users.filter(|(volume, _)| *volume == outbox).count(),
        1,
        "the outbox is shared"
    );
    let read_models: BTreeSet<String> = ROLES
        .iter()
        .map(|role| stack.service(role)?.volume_at("/var/lib/nexus-read-model"))
        .collect::<Result<_>>()?;
    assert_eq!(
        read_models.len(),
        1,
        "the roles see different read models: {read_models:?}"
    );
    stack.service("nats")?.volume_at(&nats::store_folder()?)?;
    Ok(())
}

#[test]
fn the_shared_state_may_be_lost_but_is_never_thinned_out() -> Result<()> {
    let stack = Stack::read()?;
    let redis = stack.service("redis")?;
    for [option, value] in [
        ["--appendonly", "no"],
        ["--save", ""],
        ["--maxmemory-policy", "noeviction"],
    ] {
        let set = redis.command.windows(2).any(|pair| pair == [option, value]);
        assert!(set, "{option} is not '{value}': {:?}", redis.command);
    }
    assert!(
        redis.mounts().is_empty(),
        "what may be lost needs no volume"
    );
    Ok(())
}

#[test]
fn only_the_gateway_is_published_and_only_to_this_host() -> Result<()> {
    let stack = Stack::read()?;
    for (name, service) in &stack.services {
        let ports = usize::from(name == "gateway");
        assert_eq!(
            service.ports.len(),
            ports,
            "{name} publishes {:?}",
            service.ports
        );
    }
    let published = stack.service("gateway")?.ports.concat();
    assert_eq!(stack::with_defaults(&published), "127.0.0.1:8001:8001");
    Ok(())
}

#[test]
fn only_the_gateway_holds_the_master_key() -> Result<()> {
    let stack = Stack::read()?;
    for (name, service) in &stack.services {
        let expected: &[&str] = if name == "gateway" {
            &["master_key"]
        } else {
            &[]
        };
        assert_eq!(service.secrets, expected, "{name}");
        assert!(
            !service.environment.contains_key("NEXUS_MASTER_KEY"),
            "{name}: keys are files"
        );
    }
    let file = stack
        .service("gateway")?
        .environment
        .get("NEXUS_MASTER_KEY_FILE");
    assert_eq!(file, Some(&Some("/run/secrets/master_key".to_owned())));
    Ok(())
}

#[test]
fn every_setting_is_one_that_its_role_documents() -> Result<()> {
    let stack = Stack::read()?;
    for role in ROLES {
        let help = nexus(&[role, "--help"])?;
        let documented = stack::setting_names(&help);
        for setting in stack.service(role)?.environment.keys() {
            assert!(
                documented.contains(setting),
                "`nexus {role} --help` does not know {setting}"
            );
        }
    }
    let help = nexus(&["gateway", "--help"])?;
    for setting in image::environment("compose/Dockerfile")? {
        assert!(
            help.contains(&setting),
            "`nexus gateway --help` does not know {setting}"
        );
    }
    Ok(())
}

#[test]
fn health_checks_are_commands_that_the_executable_has() -> Result<()> {
    let stack = Stack::read()?;
    for role in ROLES {
        let check = stack
            .service(role)?
            .healthcheck
            .as_ref()
            .context("no health check")?;
        let words: Vec<&str> = check.test.iter().map(String::as_str).collect();
        let Some(["CMD", "nexus", arguments @ ..]) = words.get(..) else {
            anyhow::bail!("{role} is not asked by nexus itself: {words:?}");
        };
        // An argument that it does not know is refused even before --help.
        nexus(&[arguments, &["--help"]].concat())?;
    }
    Ok(())
}

#[test]
fn the_example_environment_names_what_the_stack_reads() -> Result<()> {
    let example = stack::text("compose/.env.example")?;
    let offered: BTreeSet<String> = example
        .lines()
        .filter_map(|line| line.strip_prefix('#').unwrap_or(line).split_once('='))
        .map(|(name, _value)| name.to_owned())
        .filter(|name| !name.contains(' '))
        .collect();
    let stack = Stack::read()?;
    let handed_on = stack
        .services
        .values()
        .flat_map(|service| service.environment.clone());
    let mut read: BTreeSet<String> = handed_on
        .filter(|(_name, value)| value.is_none())
        .map(|(name, _value)| name)
        .collect();
    read.extend(stack::substituted(&stack::text(stack::FILE)?));
    assert_eq!(offered, read);
    Ok(())
}

#[test]
#[expect(clippy::print_stderr, reason = "says which part was not run, and why")]
fn docker_compose_reads_the_file() -> Result<()> {
    let Ok(program) = settings::on_path("docker-compose") else {
        eprintln!(
            "not run: there is no docker-compose on PATH to read {}",
            stack::FILE
        );
        return Ok(());
    };
    let output = Command::new(program)
        .args(["--file", stack::FILE, "config", "--quiet"])
        .current_dir(settings::workspace())
        .stdin(Stdio::null())
        .output()
        .context("failed to run docker-compose")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// What `nexus <arguments>` prints.
fn nexus(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(settings::nexus()?);
    settings::clear_environment(&mut command);
    let output = command
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("failed to run the nexus executable")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "nexus {}: {complaint}",
        arguments.join(" ")
    );
    String::from_utf8(output.stdout).context("nexus printed something that is not text")
}
