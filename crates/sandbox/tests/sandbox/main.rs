//! Real launches, as root (where the tests run so) and as nobody. The stage launches, its probe attempts.

#[cfg(test)]
mod common;
mod determined;
#[cfg(test)]
mod guards;
#[cfg(test)]
mod init;
#[cfg(test)]
mod isolation;
#[cfg(test)]
mod limits;
mod overlay;
#[cfg(test)]
mod stages;
#[cfg(test)]
mod user_names;
