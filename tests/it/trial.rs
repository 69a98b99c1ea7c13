//! A version on trial beside the stable one: who is answered by it, and what the guard does.

mod guard;
mod hostile;
mod routing;
mod shift;

use sextant::rollout::Trial;

/// Version 2, with these shares.
pub fn shares(canary: u8, shadow: u8) -> Trial {
    Trial { version: 2, canary_percent: canary.try_into().ok(), shadow_percent: shadow.try_into().ok() }
}
