// usage: ts_proto.mjs <generated folder, compiled to JavaScript> <cases folder>
import path from "node:path";
import { pathToFileURL } from "node:url";
import { checkAll } from "./cases.mjs";

const [generated, cases] = process.argv.slice(2);
const modules = new Map();
for (const file of ["k8s/api/core/v1", "k8s/api/apps/v1", "forestay/api/v1/object"]) {
  const module = await import(pathToFileURL(path.join(generated, `${file}.js`)));
  modules.set(module.protobufPackage, module);
}

checkAll("ts-proto", cases, (message, bytes) => {
  const dot = message.lastIndexOf(".");
  return modules.get(message.slice(0, dot))[message.slice(dot + 1)].decode(new Uint8Array(bytes));
});
