//! The master key: given, read from a file, or drawn once into the data directory.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Args;
use nexus_events::seal::MasterKey;
use zeroize::Zeroizing;

use super::Secret;
use crate::data_dir::write_whole;

/// What is in a data directory only after a first start has drawn a key.
const USED: [&str; 3] = ["config", "outbox", "nats"];

/// Where the master key comes from.
#[derive(Args, Clone, Debug)]
pub struct MasterKeySettings {
    /// The master key: 32 bytes in base64. It seals provider keys; without it they are lost
    #[arg(long, env = "NEXUS_MASTER_KEY", hide_env_values = true)]
    pub master_key: Option<Secret>,
    /// File that holds the master key
    #[arg(long, env = "NEXUS_MASTER_KEY_FILE", value_parser = super::value::path)]
    pub master_key_file: Option<PathBuf>,
}

impl MasterKeySettings {
    /// The key that was given, for a role that shares it with others.
    ///
    /// # Errors
    /// None was given, or it is not usable.
    pub fn required(&self) -> anyhow::Result<MasterKey> {
        match self.given()? {
            Some(key) => Ok(key),
            None => bail!(
                "the gateway role needs the master key that all gateways share: set NEXUS_MASTER_KEY_FILE or NEXUS_MASTER_KEY to 32 bytes in base64 (openssl rand -base64 32)"
            ),
        }
    }

    /// The key that was given, else the one in the data directory, drawn at the first start.
    ///
    /// # Errors
    /// The key is not usable, its file cannot be read or written, or it is gone.
    pub fn or_drawn(&self, data_dir: &Path) -> anyhow::Result<MasterKey> {
        if let Some(key) = self.given()? {
            return Ok(key);
        }
        let path = data_dir.join("master.key");
        if path.exists() {
            return read(&path);
        }
        if let Some(used) = USED.iter().find(|name| data_dir.join(name).exists()) {
            bail!(
                "{} is missing, but the data directory has been used ({used} is there), and another key would not open what it sealed: put it back, or set NEXUS_MASTER_KEY_FILE or NEXUS_MASTER_KEY to the key of before",
                path.display()
            );
        }
        let key = MasterKey::draw()?;
        let text = Zeroizing::new(format!("{}\n", key.to_base64()));
        write_whole(&path, text.as_bytes())
            .with_context(|| format!("write the master key to {}", path.display()))?;
        tracing::info!(path = %path.display(), "drew a master key; keep a copy of it in a safe place");
        Ok(key)
    }

    /// The key that was given, else the one in the data directory, for a command beside a hub.
    ///
    /// # Errors
    /// There is none, or it is not usable.
    pub fn existing(&self, data_dir: &Path) -> anyhow::Result<MasterKey> {
        if let Some(key) = self.given()? {
            return Ok(key);
        }
        let path = data_dir.join("master.key");
        if !path.exists() {
            bail!(
                "there is no master key in {}: set NEXUS_DATA_DIR, or NEXUS_MASTER_KEY_FILE or NEXUS_MASTER_KEY to that of the hub",
                data_dir.display()
            );
        }
        read(&path)
    }

    fn given(&self) -> anyhow::Result<Option<MasterKey>> {
        if let Some(text) = self.master_key.as_ref().filter(|text| !text.is_empty()) {
            return Ok(Some(
                MasterKey::from_base64(text.expose()).context("NEXUS_MASTER_KEY")?,
            ));
        }
        let file = self.master_key_file.as_deref();
        file.filter(|path| !path.as_os_str().is_empty())
            .map(read)
            .transpose()
    }
}

fn read(path: &Path) -> anyhow::Result<MasterKey> {
    let context = || format!("read the master key from {}", path.display());
    let mode = fs::metadata(path)
        .with_context(context)?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), mode = format!("{:o}", mode & 0o777),
            "the master key's file can be read by others than its owner");
    }
    let text = Zeroizing::new(fs::read_to_string(path).with_context(context)?);
    MasterKey::from_base64(&text).with_context(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: MasterKeySettings = MasterKeySettings {
        master_key: None,
        master_key_file: None,
    };

    #[test]
    fn a_key_is_drawn_once_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = NONE.or_drawn(dir.path()).unwrap();
        let again = NONE.or_drawn(dir.path()).unwrap();
        assert_eq!(first.id(), again.id());
        let mode = fs::metadata(dir.path().join("master.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_role_that_shares_the_key_asks_for_it() {
        assert!(
            NONE.required()
                .unwrap_err()
                .to_string()
                .contains("NEXUS_MASTER_KEY_FILE")
        );
        let key = MasterKey::draw().unwrap();
        let given = MasterKeySettings {
            master_key: Some(Secret::new(key.to_base64())),
            ..NONE
        };
        assert_eq!(given.required().unwrap().id(), key.id());
        let wrong = MasterKeySettings {
            master_key: Some(Secret::new("short".to_owned())),
            ..NONE
        };
        let message = format!("{:#}", wrong.required().unwrap_err());
        assert!(!message.contains("short"), "{message}");
    }
}
