//! The daemon as its users see it: one binary, so that it is linked once. The tests that kill
//! processes are in `tests/kill`.

mod clients;
mod common;
mod devnet;
mod ethereum_tests;
mod examples;
mod failing;
mod forks;
mod gateway;
mod gossip;
mod guests;
mod hand_over;
mod members;
mod monitoring;
mod page;
mod peers;
mod ports;
mod registry;
mod running;
mod single;
mod views;
