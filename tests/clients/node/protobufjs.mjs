// usage: protobufjs.mjs <proto folder> <cases folder>
import { createRequire } from "node:module";
import path from "node:path";
import protobuf from "protobufjs";
import { checkAll } from "./cases.mjs";

const [protos, cases] = process.argv.slice(2);
const root = new protobuf.Root();
// descriptor.proto, for our options, comes with protobufjs.
const bundled = path.dirname(createRequire(import.meta.url).resolve("protobufjs/package.json"));
root.resolvePath = (_, target) => path.resolve(target.startsWith("google/protobuf/") ? bundled : protos, target);
root.loadSync("forestay/api/v1/object.proto");

checkAll("protobufjs", cases, (message, bytes) => {
  const type = root.lookupType(message);
  return type.toObject(type.decode(bytes), { longs: String, bytes: String });
});
