//! Drives Syncline's engine over tokio: the only place where the pure parts meet sockets, the store and the clock.
//!
//! Reading order: [`replica`] is the interface, `shard` runs one hub, `connection` one socket, `blobs` the exchange of
//! blobs, `collection` the comparison of all documents with a peer's, `upload` blobs that are put in here, `outbox` the
//! queue between them and a socket, [`dial`] keeps a connection to a server alive, [`feed`] follows what changes, [`tls`]
//! encrypts it, [`authority`] is asked who may do what, `tenure` for how long, [`mesh`] takes part in a mesh, [`metrics`]
//! counts, [`insight`] tells people what goes on, [`way`] traces a message.
//!
//! Nothing here decides about the protocol: bytes go into a session, its messages into a hub, the hub's outputs are
//! carried out in order.

pub mod authority;
mod blobs;
mod collection;
mod connection;
pub mod dial;
pub mod feed;
pub mod insight;
pub mod mesh;
pub mod metrics;
mod outbox;
mod refusals;
pub mod replica;
mod room;
mod shard;
mod stream;
mod subjects;
mod tenure;
pub mod tls;
mod upload;
pub mod way;

pub use authority::Authority;
pub use connection::websocket_config;
pub use dial::{Credentials, DialError, DialOptions, Dialling, ServerUrl};
pub use feed::{Feeds, Follower};
pub use insight::Connected;
pub use mesh::{Mesh, MeshError, MeshOptions, MeshStatus};
pub use replica::{News, Options, Overheard, Replica};
pub use tls::{NoCertificate, Trust};
pub use upload::{Upload, UploadError};
