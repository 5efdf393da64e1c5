//! What the kernel can be told, as netlink messages.

use crate::{
    object::{Destination, Service},
    wire::Writer,
};

const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const DUMP: u16 = 0x300;
/// Of the IPVS family.
const VERSION: u8 = 1;
const HEADER: usize = 16;

const SERVICE: u16 = 1;
const DESTINATION: u16 = 2;

/// One request.
#[derive(Clone, Copy, Debug)]
pub enum Command<'a> {
    NewService(&'a Service),
    SetService(&'a Service),
    DeleteService(&'a Service),
    ListServices,
    NewDestination(&'a Service, &'a Destination),
    SetDestination(&'a Service, &'a Destination),
    DeleteDestination(&'a Service, &'a Destination),
    ListDestinations(&'a Service),
    /// Deletes every service.
    Flush,
}

impl Command<'_> {
    fn number(&self) -> u8 {
        match self {
            Self::NewService(_) => 1,
            Self::SetService(_) => 2,
            Self::DeleteService(_) => 3,
            Self::ListServices => 4,
            Self::NewDestination(..) => 5,
            Self::SetDestination(..) => 6,
            Self::DeleteDestination(..) => 7,
            Self::ListDestinations(_) => 8,
            Self::Flush => 17,
        }
    }

    fn flags(&self) -> u16 {
        match self {
            Self::ListServices | Self::ListDestinations(_) => REQUEST | DUMP,
            _ => REQUEST | ACKNOWLEDGE,
        }
    }

    /// Appends the message to a batch. `family` is the number the kernel gave to "IPVS" when asked.
    pub fn write(&self, family: u16, sequence: u32, batch: &mut Vec<u8>) {
        let mut attributes = Writer::default();
        match self {
            Self::NewService(service) | Self::SetService(service) => {
                attributes.nested(SERVICE, |out| service.write(out));
            }
            Self::DeleteService(service) | Self::ListDestinations(service) => {
                attributes.nested(SERVICE, |out| service.write_key(out));
            }
            Self::NewDestination(service, destination)
            | Self::SetDestination(service, destination)
            | Self::DeleteDestination(service, destination) => {
                attributes.nested(SERVICE, |out| service.write_key(out));
                attributes.nested(DESTINATION, |out| destination.write(out));
            }
            Self::ListServices | Self::Flush => {}
        }
        let attributes = attributes.into_bytes();
        let length = u32::try_from(HEADER + 4 + attributes.len()).expect("a message is far below 4 GiB");
        batch.extend_from_slice(&length.to_ne_bytes());
        batch.extend_from_slice(&family.to_ne_bytes());
        batch.extend_from_slice(&self.flags().to_ne_bytes());
        batch.extend_from_slice(&sequence.to_ne_bytes());
        batch.extend_from_slice(&[0; 4]);
        batch.extend_from_slice(&[self.number(), VERSION, 0, 0]);
        batch.extend_from_slice(&attributes);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::{
        object::{Address, Flags, Forward, Target},
        wire::Attributes,
    };

    fn service(ip: &str) -> Service {
        Service {
            target: Target::Address(Address { ip: ip.parse().unwrap(), protocol: 6, port: 80 }),
            scheduler: "rr".to_owned(),
            flags: Flags::PERSISTENT,
            timeout_seconds: 60,
        }
    }

    fn destination(ip: &str) -> Destination {
        Destination {
            ip: ip.parse().unwrap(),
            port: 8080,
            forward: Forward::Masquerade,
            weight: 1,
            connections_max: 0,
            connections_again: 0,
        }
    }

    fn written(command: Command<'_>) -> Vec<u8> {
        let mut batch = Vec::new();
        command.write(0x22, 7, &mut batch);
        batch
    }

    fn check(command: Command<'_>, expected: Expect) {
        let rows: Vec<String> = written(command)
            .chunks(16)
            .map(|row| {
                row.chunks(4)
                    .map(|word| word.iter().map(|byte| format!("{byte:02x}")).collect())
                    .collect::<Vec<String>>()
                    .join(" ")
            })
            .collect();
        expected.assert_eq(&(rows.join("\n") + "\n"));
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_flush_is_a_header_and_no_more() {
        check(
            Command::Flush,
            expect![[r#"
            14000000 22000500 07000000 00000000
            11010000
        "#]],
        );
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_new_service_has_the_layout_of_the_kernels_header_file() {
        check(
            Command::NewService(&service("10.96.0.1")),
            expect![[r#"
            68000000 22000500 07000000 00000000
            01010000 54000180 06000100 02000000
            06000200 06000000 14000300 0a600001
            00000000 00000000 00000000 06000400
            00500000 07000600 72720000 0c000700
            01000000 ffffffff 08000800 3c000000
            08000900 ffffffff
        "#]],
        );
    }

    #[test]
    fn what_is_written_reads_back() {
        for ip in ["10.96.0.1", "fd00::1"] {
            let (service, destination) = (service(ip), destination(ip));
            let message = written(Command::NewDestination(&service, &destination));
            let attributes = Attributes(&message[HEADER + 4..]);
            assert_eq!(Destination::read(attributes.nested(DESTINATION)).unwrap().object, destination);
            let message = written(Command::NewService(&service));
            assert_eq!(Service::read(Attributes(&message[HEADER + 4..]).nested(SERVICE)).unwrap().object, service);
        }
    }

    #[test]
    fn a_message_says_its_own_length() {
        let service = service("10.96.0.1");
        for command in [Command::ListServices, Command::ListDestinations(&service), Command::DeleteService(&service)] {
            let message = written(command);
            assert_eq!(crate::wire::array(&message).map(u32::from_ne_bytes), Some(message.len() as u32));
        }
    }

    #[test]
    fn damaged_attributes_are_no_object_and_no_panic() {
        let message = written(Command::NewService(&service("10.96.0.1")));
        let whole = &message[HEADER + 8..];
        for length in 0..whole.len() - 8 {
            assert!(Service::read(Attributes(&whole[..length])).is_none());
        }
        let mut state = 1u32;
        for _ in 0..2000 {
            let bytes: Vec<u8> = (0..40)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8 & 0x1f
                })
                .collect();
            let _ = (Service::read(Attributes(&bytes)), Destination::read(Attributes(&bytes)));
        }
    }
}
