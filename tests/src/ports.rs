//! Ports: taken from the operating system, never from a list.
//!
//! Whoever can bind port 0 and tell us the port does so; [`free`] is for programs that cannot.
//! [`refusing`] is an address where nothing ever listens.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tokio::net::TcpSocket;

/// A port that was free a moment ago.
///
/// Another program may take it first, so the caller must be ready to try again.
///
/// # Errors
///
/// When the operating system has no port left.
pub fn free() -> Result<u16> {
    let held = hold(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    Ok(held
        .local_addr()
        .context("failed to read the address of a socket")?
        .port())
}

/// An address that refuses every connection for as long as this process lives.
///
/// The port is bound but nobody listens, so no other program can take it and answer after all.
///
/// # Errors
///
/// When the operating system has no port left.
pub fn refusing() -> Result<SocketAddr> {
    static HELD: OnceLock<Mutex<Option<TcpSocket>>> = OnceLock::new();
    let mut held = HELD.get_or_init(Mutex::default).lock();
    let socket = match held.take() {
        Some(socket) => socket,
        None => hold(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?,
    };
    let address = socket
        .local_addr()
        .context("failed to read the address of a socket")?;
    *held = Some(socket);
    Ok(address)
}

/// Binds `address` without listening: the port is ours, and connections to it are refused.
///
/// # Errors
///
/// When the address is taken.
pub fn hold(address: SocketAddr) -> Result<TcpSocket> {
    let socket = TcpSocket::new_v4().context("failed to create a socket")?;
    socket
        .set_reuseaddr(true)
        .context("failed to set SO_REUSEADDR")?;
    socket
        .bind(address)
        .with_context(|| format!("failed to bind {address}"))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn the_refusing_address_refuses_and_stays() {
        let address = refusing().unwrap();
        let error = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(refusing().unwrap(), address);
    }
}
