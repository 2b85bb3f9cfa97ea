//! Processes that are nobody's handle: the `nats-server` that a hub runs itself.
//!
//! Found in the system's process table by what stands on their command line, which is how a test
//! sees that nothing was left behind.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// The ids of all processes whose command line runs `program` and has `argument` in it.
///
/// # Errors
///
/// When the system does not show its processes.
pub fn find(program: &str, argument: &str) -> Result<Vec<u32>> {
    let found = processes()?
        .into_iter()
        .filter(|(_pid, words)| {
            let runs = words.first().and_then(|first| Path::new(first).file_name());
            runs.is_some_and(|name| name == program)
                && words.iter().any(|word| word.contains(argument))
        })
        .map(|(pid, _words)| pid)
        .collect();
    Ok(found)
}

/// Kills a process that no handle holds with SIGKILL.
///
/// # Errors
///
/// When it is gone.
pub fn kill(pid: u32) -> Result<()> {
    let raw = i32::try_from(pid).context("a strange process id")?;
    let pid = Pid::from_raw(raw).context("a strange process id")?;
    kill_process(pid, Signal::KILL).with_context(|| format!("failed to kill process {raw}"))
}

/// Every process with the words of its command line.
fn processes() -> Result<Vec<(u32, Vec<String>)>> {
    let table = Path::new("/proc");
    if !table.join("self/cmdline").exists() {
        return from_ps();
    }
    let entries = std::fs::read_dir(table).context("failed to read /proc")?;
    Ok(entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            // A process may be gone before it is looked at.
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let words = line.split(|byte| *byte == 0);
            let words = words.map(|word| String::from_utf8_lossy(word).into_owned());
            Some((pid, words.collect()))
        })
        .collect())
}

/// For systems without `/proc`.
fn from_ps() -> Result<Vec<(u32, Vec<String>)>> {
    let output = Command::new("ps")
        .args(["-A", "-o", "pid=,args="])
        .output()
        .context("failed to run ps")?;
    ensure!(output.status.success(), "ps failed: {output:?}");
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(lines
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let pid = words.next()?.parse().ok()?;
            Some((pid, words.map(str::to_owned).collect()))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::process::Process;
    use crate::wait::until;

    #[tokio::test]
    async fn a_process_is_found_by_its_command_line_until_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("61.25");
        let mut process = Process::start("sleeper", &command, folder.path()).unwrap();
        let bound = Duration::from_secs(10);
        until("the process table shows it", bound, async || {
            match find("sleep", "61.25").unwrap()[..] {
                [pid] if pid == process.pid() => Ok(()),
                ref other => Err(format!("{other:?}")),
            }
        })
        .await
        .unwrap();
        assert!(find("sleep", "61.26").unwrap().is_empty());
        kill(process.pid()).unwrap();
        process.end(bound).await.unwrap();
        assert!(find("sleep", "61.25").unwrap().is_empty());
    }
}
