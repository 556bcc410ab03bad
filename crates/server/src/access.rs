//! Who may do what on this server.
//!
//! Reading order: `gate` puts the rules in force, `caller` is who sends a request, `token` what is presented, `keys` and
//! `keyring` what it is verified with, `callback` whoever decides elsewhere, `fetch` how others are asked, `provider` the
//! cryptography.

mod callback;
pub(crate) mod caller;
mod gate;
mod keyring;
mod keys;
mod new_key;
mod provider;
mod token;

pub use callback::CallbackConfig;
pub(crate) use gate::Gate;
pub use gate::Rules;
pub use keys::{KeyError, SigningKey};
pub use new_key::{KeyKind, NewKey};
pub use token::{Claims, Documents, GrantClaim, MintError, inspect};
