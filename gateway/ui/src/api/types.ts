import type { components } from "./schema";

type Schemas = components["schemas"];

export type Catalogue = Schemas["GetCatalogueResponse"];
export type GpuType = Schemas["GpuType"];
export type Preset = Schemas["Preset"];
export type PresetId = Preset["id"];
export type Repair = Schemas["Repair"];
export type Forecast = Schemas["Forecast"];
export type MemoryForecast = Schemas["MemoryForecast"];
export type Quote = Schemas["Quote"];
export type ComparisonPoint = Schemas["ComparisonPoint"];
export type ComparisonRequest = Schemas["CompareConfigurationsRequest"];
export type Comparison = Schemas["CompareConfigurationsResponse"];
export type EstimateRequest = Schemas["EstimateCostRequest"];
export type Estimate = Schemas["EstimateCostResponse"];
export type CreateJobRequest = Schemas["CreateJobRequest"];
export type Job = Schemas["Job"];
export type JobEvent = Schemas["JobEvent"];
export type JobMetrics = Schemas["JobMetrics"];
export type JobStatus = Job["status"];
export type Dataset = Schemas["Dataset"];
export type DatasetStatus = Dataset["status"];
export type Notification = Schemas["Notification"];
export type Pagination = Schemas["Pagination"];
