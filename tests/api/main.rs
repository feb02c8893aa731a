//! The REST API without a network: the whole router over a real store, with an engine that only takes notes.

#[cfg(test)]
mod changes;
#[cfg(test)]
mod config_service;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod decisions;
#[cfg(test)]
mod dry_run;
#[cfg(test)]
mod enrolment;
#[cfg(test)]
mod guesses;
#[cfg(test)]
mod hang_ups;
#[cfg(test)]
mod host_agents;
#[cfg(test)]
mod host_preparation;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod links;
#[cfg(test)]
mod locks;
#[cfg(test)]
mod once;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod packages;
#[cfg(test)]
mod passwords;
#[cfg(test)]
mod places;
#[cfg(test)]
mod ports;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod removal;
#[cfg(test)]
mod resources;
#[cfg(test)]
mod seeds;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod support;
