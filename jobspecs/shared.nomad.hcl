# A shared runtime: instances of one environment, spread over the nodes, for everyone who may submit flows.
#
#   nomad job run -var name=team-nlp -var count=3 shared.nomad.hcl
#
# Every node that is to run an instance needs the nomad-promptflow plugin and, below the plugin's environments folder, the
# environment named here.

variable "name" {
  type        = string
  default     = "shared"
  description = "Name of the runtime, by which flows are submitted to it. It is the job's id and, after promptflow-, the service's name."

  validation {
    condition     = strlen(var.name) <= 52 && regex_replace(var.name, "^[a-z0-9]+(-+[a-z0-9]+)*$", "") == "" && var.name != ""
    error_message = "Use 1 to 52 lower case letters, digits and dashes, with a letter or digit at both ends: the service's name is made from it."
  }
}

variable "count" {
  type        = number
  default     = 1
  description = "Number of instances. 0 keeps the runtime stopped."

  validation {
    condition     = var.count >= 0 && var.count <= 50000 && floor(var.count) == var.count
    error_message = "Use a whole number from 0 to 50000, the most that a Nomad server takes unless it is told otherwise."
  }
}

variable "datacenters" {
  type        = list(string)
  default     = ["*"]
  description = "Datacenters in which instances may be placed. * stands for any text."

  validation {
    condition     = length(var.datacenters) > 0 && !contains(var.datacenters, "")
    error_message = "Name one datacenter or more, or [\"*\"] for all."
  }
}

variable "environment" {
  type        = string
  default     = "default"
  description = "Environment the instances are made from, as NAME or NAME:VERSION. The base image is \"default\"."

  validation {
    condition     = regex_replace(var.environment, "^[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?$", "") == "" && var.environment != ""
    error_message = "Use NAME or NAME:VERSION, for example default or team-nlp:3."
  }
}

variable "image" {
  type        = string
  default     = ""
  description = "Image reference to use in the place of an environment, for example registry.example/team/nlp@sha256:... Empty uses the environment."
}

variable "image_pull_policy" {
  type        = string
  default     = "if-not-present"
  description = "When a node fetches the image: if-not-present, always or never."

  validation {
    condition     = contains(["if-not-present", "always", "never"], var.image_pull_policy)
    error_message = "Use if-not-present, always or never."
  }
}

variable "flow" {
  type        = string
  default     = ""
  description = "Flow folder or bundle file, as the container sees it, to load before an instance is ready and to serve at /score. Empty serves submissions only."
}

variable "max_concurrency" {
  type        = number
  default     = 32
  description = "Runs that one instance works on at once. It refuses more."

  validation {
    condition     = var.max_concurrency >= 1 && floor(var.max_concurrency) == var.max_concurrency
    error_message = "Use a whole number of 1 or more."
  }
}

variable "workers" {
  type        = number
  default     = 0
  description = "Python worker processes per flow in one instance. 0 takes it from the processors the instance may use."

  validation {
    condition     = var.workers >= 0 && floor(var.workers) == var.workers
    error_message = "Use a whole number of 0 or more."
  }
}

variable "cpu" {
  type        = number
  default     = 1000
  description = "Processor share of one instance, in MHz."

  validation {
    condition     = var.cpu >= 1 && floor(var.cpu) == var.cpu
    error_message = "Use a whole number of 1 or more MHz."
  }
}

variable "memory" {
  type        = number
  default     = 1024
  description = "Memory reserved for one instance, in MiB."

  validation {
    condition     = var.memory >= 64 && floor(var.memory) == var.memory
    error_message = "Use a whole number of 64 or more MiB: below that no Python worker starts."
  }
}

variable "memory_max" {
  type        = number
  default     = 0
  description = "Memory one instance may take while its node has it to spare, in MiB, where the cluster allows oversubscription. 0 allows no more than memory."

  validation {
    condition     = var.memory_max >= 0 && floor(var.memory_max) == var.memory_max
    error_message = "Use a whole number of MiB, or 0 for none."
  }
}

variable "network_mode" {
  type        = string
  default     = "host"
  description = "Network of the instances: host is the node's own, bridge a namespace of each instance's own, which needs CNI plugins on the nodes."

  validation {
    condition     = contains(["host", "bridge"], var.network_mode)
    error_message = "Use host or bridge."
  }
}

variable "service_provider" {
  type        = string
  default     = "consul"
  description = "Where the runtime is registered: consul, or nomad for Nomad's own service catalog."

  validation {
    condition     = contains(["consul", "nomad"], var.service_provider)
    error_message = "Use consul or nomad."
  }
}

variable "token_variable" {
  type        = string
  default     = ""
  description = "Path of a Nomad variable whose item \"token\" submitters must show, for example nomad/jobs/shared. Empty asks for none: then everyone who reaches an instance can run code in it."

  validation {
    condition     = regex_replace(var.token_variable, "^[A-Za-z0-9_~/-]*$", "") == ""
    error_message = "Use letters, digits, slashes and any of - _ ~, as in the path of a Nomad variable."
  }
}

variable "env" {
  type        = map(string)
  default     = {}
  description = "Environment variables for the flows, for example { OPENAI_BASE_URL = \"https://llm.example/v1\" }. Keep secrets out: whoever may read the job can read them."
}

job "promptflow-shared" {
  id          = var.name
  name        = var.name
  type        = "service"
  datacenters = var.datacenters

  # One instance after the other, and back to the last good version when the new one does not become ready.
  update {
    max_parallel      = 1
    health_check      = "checks"
    min_healthy_time  = "5s"
    healthy_deadline  = "5m"
    progress_deadline = "10m"
    auto_revert       = true
  }

  group "runtime" {
    count = var.count

    # Gateways stop sending before the instance stops answering.
    shutdown_delay = "5s"

    spread {
      attribute = "${node.unique.id}"
    }

    network {
      mode = var.network_mode
      port "http" {}
    }

    service {
      name     = "promptflow-${var.name}"
      provider = var.service_provider
      port     = "http"
      tags     = ["promptflow"]

      meta {
        type        = "shared"
        environment = var.image == "" ? var.environment : var.image
        concurrency = "${var.max_concurrency}"
        api         = "v1"
      }

      check {
        name     = "ready"
        type     = "http"
        path     = "/ready"
        interval = "5s"
        timeout  = "2s"
      }

      # Apart from the check above, since an instance that is busy getting ready must not be restarted for it.
      check {
        name     = "alive"
        type     = "http"
        path     = "/health"
        interval = "10s"
        timeout  = "5s"

        check_restart {
          limit = 3
          grace = "1m"
        }
      }
    }

    task "runtime" {
      driver = "promptflow"

      # Runs that are under way may end.
      kill_timeout = "30s"

      config {
        environment       = var.image == "" ? var.environment : null
        image             = var.image == "" ? null : var.image
        image_pull_policy = var.image_pull_policy
        flow              = var.flow == "" ? null : var.flow
        max_concurrency   = var.max_concurrency
        workers           = var.workers
        ports             = ["http"]
      }

      env = merge(var.env, {
        PROMPTFLOW_RUNTIME      = var.name
        PROMPTFLOW_RUNTIME_TYPE = "shared"
        PROMPTFLOW_TRUST        = var.token_variable == "" ? "" : "file:/secrets/token"
      })

      dynamic "template" {
        for_each = var.token_variable == "" ? [] : [var.token_variable]

        content {
          data        = "{{ with nomadVar \"${template.value}\" }}{{ .token }}{{ end }}"
          destination = "secrets/token"
          change_mode = "restart"

          # Without it a missing item would give a token that everyone can guess.
          error_on_missing_key = true
        }
      }

      resources {
        cpu        = var.cpu
        memory     = var.memory
        memory_max = var.memory_max
      }
    }
  }
}
