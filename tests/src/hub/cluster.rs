//! The roles as separate processes that share one broker, one Redis and one read model.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::HubBuilder;
use super::builder::{random_admin_key, random_master_key};
use crate::broker::Broker;
use crate::read_model::ReadModel;
use crate::redis::Redis;

/// The settings that the roles of one installation share.
#[derive(Debug)]
pub struct Cluster {
    nats_url: String,
    redis_url: String,
    master_key: String,
    admin_key: String,
    folder: Arc<TempDir>,
}

impl Cluster {
    /// An installation on this broker and this Redis, with keys of its own.
    ///
    /// # Errors
    ///
    /// When no folder can be created.
    pub fn new(broker: &Broker, redis: &Redis) -> Result<Self> {
        Self::at(&broker.url(), &redis.url())
    }

    /// The same by address, for example with a [`crate::Chaos`] in between.
    ///
    /// # Errors
    ///
    /// When no folder can be created.
    pub fn at(nats_url: &str, redis_url: &str) -> Result<Self> {
        let folder = tempfile::tempdir().context("failed to create the shared folder")?;
        Ok(Self {
            nats_url: nats_url.to_owned(),
            redis_url: redis_url.to_owned(),
            master_key: random_master_key()?,
            admin_key: random_admin_key()?,
            folder: Arc::new(folder),
        })
    }

    /// `nexus gateway`; as many as the test wants.
    pub fn gateway(&self) -> HubBuilder {
        self.role("gateway")
    }

    /// `nexus projector`.
    pub fn projector(&self) -> HubBuilder {
        self.role("projector")
    }

    /// `nexus archiver`.
    pub fn archiver(&self) -> HubBuilder {
        self.role("archiver")
    }

    /// The shared read model.
    pub fn read_model(&self) -> ReadModel {
        ReadModel::at(&self.folder.path().join("read_model"))
    }

    /// The folder of the backups; it need not exist yet.
    pub fn backups(&self) -> PathBuf {
        self.folder.path().join("backups")
    }

    fn role(&self, role: &str) -> HubBuilder {
        let folder = self.folder.path();
        HubBuilder::role(role)
            .folder(Arc::clone(&self.folder))
            .admin_key(&self.admin_key)
            .env("NEXUS_NATS_URL", &self.nats_url)
            .env("NEXUS_REDIS_URL", &self.redis_url)
            .env("NEXUS_MASTER_KEY", &self.master_key)
            .env("NEXUS_READ_MODEL_DIR", folder.join("read_model").display())
            .env("NEXUS_BACKUP_DIR", self.backups().display())
    }
}
