//! Socket and QUIC transport parameters.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{Connection, IdleTimeout, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};

use super::{FixedWindow, NetConfig, NetError};
use crate::membership::canonical;

/// A path must carry this much UDP payload for shreds to travel as datagrams.
const MTU: u16 = 1200;
/// Buffer size requested for each direction; the operating system may give less.
const SOCKET_BUFFER: usize = 8 * 1024 * 1024;
/// Datagrams received and not read yet, and sent and not on the wire yet, per connection.
const DATAGRAM_BUFFER: usize = 1024 * 1024;
/// Stream bytes received and not read yet, per connection.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// Control and shreds, each at most twice while a stream is replaced.
const STREAMS: u32 = 4;

pub(super) fn config(net: &NetConfig) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        // Above 1 % loss quinn takes a large MTU for a black hole and shrinks it: begin, and
        // stay, at what every path carries.
        .initial_mtu(MTU)
        .min_mtu(MTU)
        .mtu_discovery_config(None)
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW / 2))
        .receive_window(VarInt::from_u32(STREAM_WINDOW))
        .send_window(u64::from(STREAM_WINDOW))
        .datagram_receive_buffer_size(net.datagrams.then_some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .keep_alive_interval(Some(net.idle_timeout / 4))
        .max_idle_timeout(IdleTimeout::try_from(net.idle_timeout).ok())
        .congestion_controller_factory(Arc::new(FixedWindow::new(net.uplink_bps)));
    Arc::new(transport)
}

/// Where the peer of a connection is, as its record says it: an IPv6 socket maps IPv4 addresses.
pub(super) fn remote(connection: &Connection) -> SocketAddr {
    canonical(connection.remote_address())
}

/// Binds a UDP socket with large buffers: a burst that overruns them is lost.
///
/// Binding is a step of its own, so that a program which starts several nodes can let the system
/// choose the ports and still tell every node about all of them.
///
/// # Errors
/// [`NetError::Bind`].
pub fn bind(listen: SocketAddr) -> Result<std::net::UdpSocket, NetError> {
    socket(listen).map_err(|source| NetError::Bind { address: listen, source })
}

fn socket(listen: SocketAddr) -> std::io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    if listen.is_ipv6() {
        // Dual stack where the system allows it.
        let _ = socket.set_only_v6(false);
    }
    // The system may refuse or give less; it still works.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&listen.into())?;
    Ok(socket.into())
}
